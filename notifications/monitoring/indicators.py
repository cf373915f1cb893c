"""Vital signs: a few numbers that say whether delivery works, each read from an index."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.db import connection

from notifications.conf import service_options
from notifications.telemetry import heartbeats

COUNTED = 100_000
"""Rows that are looked at to count what waits: a backlog is huge beyond, and must not be read whole."""

_OLDEST = """
SELECT EXTRACT(epoch FROM statement_timestamp() - next_attempt_at)::float8
FROM notification_records
WHERE next_attempt_at <= statement_timestamp()
ORDER BY next_attempt_at
LIMIT 1
"""

_WAITING = """
SELECT channel, status, last_error_code, next_attempt_at <= statement_timestamp() AS due, count(*)
FROM (
    SELECT channel, status, last_error_code, next_attempt_at
    FROM notification_records
    WHERE next_attempt_at IS NOT NULL
    ORDER BY next_attempt_at
    LIMIT %(counted)s
) AS soonest
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
"""

_PAUSED = """
SELECT channel, count(*) FROM user_notification_channels WHERE paused_at IS NOT NULL GROUP BY 1 ORDER BY 1
"""

_REJECTED = """
SELECT count(*) FROM notification_rejected_requests WHERE created_at > statement_timestamp() - interval '1 hour'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How many records of one kind have not ended."""

    channel: str
    status: str
    error_code: str
    """What the last attempt failed with; empty where none was made."""
    due: bool
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """How long nothing was heard."""

    sweep: float | None
    """Seconds since the last sweep ended; None: there never was one."""
    beat: float | None
    """Seconds since beat was heard of; None: never."""
    workers: int

    @property
    def too_long(self) -> bool:
        """Whether a sweep is missed: retries and scheduled sends wait for it."""
        return self.sweep is None or self.sweep > service_options().sweep_limit


def oldest_due_age() -> float:
    """Return for how many seconds the record that is due longest has been due; 0 when none is."""
    with connection.cursor() as cursor:
        cursor.execute(_OLDEST)
        row = cursor.fetchone()
    return float(row[0]) if row else 0.0


def waiting() -> list[Waiting]:
    """Return what has not ended, by kind: of the COUNTED rows that are due first."""
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"counted": COUNTED})
        return [
            Waiting(channel=channel, status=status, error_code=code, due=due, count=count)
            for channel, status, code, due, count in cursor.fetchall()
        ]


def paused_channels() -> dict[str, int]:
    """Return how many users' channels are paused, by channel."""
    with connection.cursor() as cursor:
        cursor.execute(_PAUSED)
        return dict(cursor.fetchall())


def rejected_lately() -> int:
    """Return how many requests were refused within the last hour."""
    with connection.cursor() as cursor:
        cursor.execute(_REJECTED)
        count: int = cursor.fetchone()[0]
    return count


def silence() -> Silence:
    """Return how long sweep and beat have been silent, by PostgreSQL's clock."""
    seen = heartbeats.last_heartbeats()

    def since(moment: datetime | None) -> float | None:
        return (seen.now - moment).total_seconds() if moment else None

    return Silence(sweep=since(seen.sweep), beat=since(seen.beat), workers=seen.workers)
