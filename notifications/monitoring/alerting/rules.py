"""Findings: what needs a person right now, as the tables say. Read from indexes, once a minute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from django.db import connection

from notifications.conf import service_options
from notifications.monitoring.indicators import COUNTED, oldest_due_age, silence
from notifications.states import AlertKind

_DIED = """
SELECT channel, last_error_code, count(*)
FROM (
    SELECT channel, last_error_code FROM notification_records
    WHERE status = 'dead' AND updated_at > statement_timestamp() - %(window)s * interval '1 second'
    ORDER BY updated_at DESC LIMIT %(counted)s
) AS died
GROUP BY 1, 2
"""

_PAUSED = """
SELECT channel, count(*) FROM user_notification_channels
WHERE paused_at > statement_timestamp() - %(window)s * interval '1 second'
GROUP BY 1
"""

_REJECTED = """
SELECT count(*)
FROM (
    SELECT 1 FROM notification_rejected_requests
    WHERE created_at > statement_timestamp() - %(window)s * interval '1 second'
    ORDER BY created_at DESC LIMIT %(counted)s
) AS refused
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that needs a person."""

    cause: str
    """Findings of the same cause are one alert."""
    kind: AlertKind
    count: int = 1
    facts: dict[str, object] = field(default_factory=dict)


def findings() -> Iterator[Finding]:
    """Yield what needs a person: what happened within the last ALERT_WINDOW, and what lasts. Raises DatabaseError."""
    options = service_options()
    window = {"window": options.alert_window, "counted": COUNTED}
    with connection.cursor() as cursor:
        cursor.execute(_DIED, window)
        for channel, code, count in cursor.fetchall():
            facts: dict[str, object] = {"channel": channel, "code": code}
            yield Finding(cause=f"dead:{channel}:{code}", kind=AlertKind.DEAD, count=count, facts=facts)
        cursor.execute(_PAUSED, window)
        for channel, count in cursor.fetchall():
            yield Finding(cause=f"paused:{channel}", kind=AlertKind.PAUSED, count=count, facts={"channel": channel})
        cursor.execute(_REJECTED, window)
        [rejected] = cursor.fetchone()
    if rejected:
        yield Finding(cause="rejected", kind=AlertKind.REJECTED, count=rejected)
    if (age := oldest_due_age()) > options.due_age_limit:
        yield Finding(cause="late", kind=AlertKind.LATE, facts={"seconds": round(age)})
    silent = silence()
    if silent.too_long and silent.sweep is not None:  # where none has ever run yet, what waits for it will be late
        yield Finding(cause="sweep", kind=AlertKind.SWEEP, facts={"seconds": round(silent.sweep)})
