"""Alerts: a person is told once about each cause, however many processes look, and told again when it is over.

A row of `notification_alerts` stands for a cause and a sink. A look brings the rows up to date and tells what is owed:

- seen: `first_seen`, `last_seen`; told once in ALERT_WINDOW while it lasts: `told_at`.
- no longer seen, and told: `cleared_at`. Its all-clear is given once: `all_clear_at`.
- Whoever tells claims the row first, until `telling_until`. A sink that fails, or a process that dies, leaves it owed.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from django.db import connection
from django.dispatch import Signal

from notifications.conf import service_options
from notifications.content.sanitize import clean_json
from notifications.monitoring.alerting.messages import compose
from notifications.monitoring.alerting.owner_emails import email_channel_owners
from notifications.monitoring.alerting.receivers import Receiver, ReceiverError, configured_receivers
from notifications.monitoring.alerting.rules import Finding, findings

logger = logging.getLogger("notifications.alerts")

alert_sent = Signal()
"""Sent once for each telling, with cause, kind, count, subject, text and cleared (whether it is the all-clear)."""

TELLING = 60.0
"""Seconds until a claim to tell is given up: longer than any sink takes."""

_NOTE = """
INSERT INTO notification_alerts AS alert (cause, sink, kind, facts, count, first_seen, last_seen)
SELECT cause, sink, kind, facts, count, statement_timestamp(), statement_timestamp()
FROM unnest(%(causes)s::text[], %(kinds)s::text[], %(facts)s::jsonb[], %(counts)s::int[])
         AS found(cause, kind, facts, count)
     CROSS JOIN unnest(%(sinks)s::text[]) AS sink
ORDER BY cause, sink  -- the same order in every process, so that two looks cannot deadlock
ON CONFLICT (cause, sink) DO UPDATE
SET facts = EXCLUDED.facts,
    count = EXCLUDED.count,
    first_seen = CASE WHEN alert.cleared_at IS NULL THEN alert.first_seen ELSE EXCLUDED.first_seen END,
    last_seen = EXCLUDED.last_seen,
    cleared_at = NULL
"""

# What nobody has been told of yet stays, though it is over: its sink may have failed all the time.
_CLEAR = """
UPDATE notification_alerts SET cleared_at = statement_timestamp()
WHERE id IN (
    SELECT id FROM notification_alerts
    WHERE cleared_at IS NULL AND NOT cause = ANY(%(causes)s::text[])
      AND told_at >= first_seen - %(window)s * interval '1 second'
    FOR UPDATE SKIP LOCKED
)
"""

_CLAIM = """
UPDATE notification_alerts AS alert SET telling_until = statement_timestamp() + %(telling)s * interval '1 second'
WHERE id = (
    SELECT id FROM notification_alerts
    WHERE sink = ANY(%(sinks)s::text[])
      AND (telling_until IS NULL OR telling_until < statement_timestamp())
      AND CASE WHEN cleared_at IS NULL
               THEN told_at IS NULL OR told_at < statement_timestamp() - %(window)s * interval '1 second'
               ELSE all_clear_at IS NULL END
    ORDER BY first_seen, id
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING id, cause, sink, kind, count, facts, first_seen, cleared_at
"""

_TOLD = """
UPDATE notification_alerts
SET telling_until = NULL, told_at = statement_timestamp(), all_clear_at = NULL WHERE id = %(id)s
"""
_ALL_CLEAR = """
UPDATE notification_alerts SET telling_until = NULL, all_clear_at = statement_timestamp() WHERE id = %(id)s
"""
_NOT_TOLD = "UPDATE notification_alerts SET telling_until = NULL WHERE id = %(id)s"


def evaluate() -> None:
    """See what needs a person, and tell what is owed. Any number of processes may look at once.

    Raises DatabaseError when PostgreSQL is away. A sink that fails is left alone for the rest of this look.
    """
    ways: dict[str, Receiver | None] = {"signal": None, **configured_receivers()}
    _note(list(findings()), list(ways))
    while ways and (owed := _claim(list(ways))):
        if not _tell(owed, ways[owed["sink"]]):
            del ways[owed["sink"]]
    email_channel_owners()


_last_evaluation: list[float] = []


def evaluate_if_due() -> None:
    """Look, but not more often than beat would; for those who notice that beat is gone. Never raises."""
    now = time.monotonic()
    if _last_evaluation and now - _last_evaluation[0] < service_options().sweep_interval:
        return
    _last_evaluation[:] = [now]
    try:
        evaluate()
    except Exception as error:
        logger.warning("could not look: %s", type(error).__name__, extra={"event": "alert.blind"})


def _note(found: list[Finding], names: list[str]) -> None:
    causes = [one.cause[:191] for one in found]
    parameters: dict[str, Any] = {
        "causes": causes,
        "kinds": [one.kind.value for one in found],
        "facts": [clean_json(one.facts) for one in found],
        "counts": [one.count for one in found],
        "sinks": names,
        "window": service_options().alert_window,
    }
    with connection.cursor() as cursor:
        cursor.execute(_NOTE, parameters)
        cursor.execute(_CLEAR, parameters)


def _claim(names: list[str]) -> dict[str, Any] | None:
    parameters: dict[str, Any] = {"sinks": names, "window": service_options().alert_window, "telling": TELLING}
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, parameters)
        row = cursor.fetchone()
        return dict(zip((column.name for column in cursor.description), row, strict=True)) if row else None


def _tell(owed: dict[str, Any], sink: Receiver | None) -> bool:
    """Tell it and note whether that worked."""
    over = owed["cleared_at"]
    subject, text = compose(owed["kind"], owed["count"], json.loads(owed["facts"]), owed["first_seen"], over)
    trouble = ""
    try:
        if sink:
            sink(subject, text)
        else:
            _signal(owed, subject, text)
    except ReceiverError as error:
        trouble = str(error)
    except Exception as error:
        trouble = type(error).__name__  # its text may hold an address or a password
    with connection.cursor() as cursor:
        cursor.execute(_NOT_TOLD if trouble else _ALL_CLEAR if over else _TOLD, {"id": owed["id"]})
    if trouble:
        logger.error(
            "nobody told by %s: %s", owed["sink"], trouble, extra={"event": "alert.failed", "cause": owed["cause"]}
        )
    return not trouble


def _signal(owed: dict[str, Any], subject: str, text: str) -> None:
    facts = {"event": "alert.cleared" if owed["cleared_at"] else "alert.raised", "cause": owed["cause"]}
    logger.warning("%s", subject, extra=facts)
    alert_sent.send_robust(
        sender=None,
        cause=owed["cause"],
        kind=owed["kind"],
        count=owed["count"],
        subject=subject,
        text=text,
        cleared=bool(owed["cleared_at"]),
    )
