"""Heartbeats: when beat, the sweep and each worker process were last heard of, by PostgreSQL's clock."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime

from django.db import Error, connection

from notifications.states import Pulse
from notifications.telemetry.process import worker_name

logger = logging.getLogger("notifications.heartbeats")

EVERY = 20.0
"""Seconds between two writes of one process for one pulse: three to a minute, the time a worker may be silent."""

_turns: dict[Pulse, float] = {}
"""When this process had its last turn, on its monotonic clock."""

_SEEN = """
SELECT statement_timestamp(),
       max(seen_at) FILTER (WHERE kind = 'beat'),
       max(seen_at) FILTER (WHERE kind = 'sweep'),
       count(*) FILTER (WHERE kind = 'worker' AND seen_at > statement_timestamp() - interval '1 minute')
FROM notification_heartbeats
"""

# Workers that were killed leave their rows behind; whoever beats next takes away what nobody asks for any more.
_BEAT = """
WITH gone AS (
    DELETE FROM notification_heartbeats WHERE name IN (
        SELECT name FROM notification_heartbeats
        WHERE kind = 'worker' AND name <> %(name)s AND seen_at < statement_timestamp() - interval '1 day'
        FOR UPDATE SKIP LOCKED
    )
)
INSERT INTO notification_heartbeats (name, kind, seen_at) VALUES (%(name)s, %(kind)s, statement_timestamp())
ON CONFLICT (name) DO UPDATE SET seen_at = EXCLUDED.seen_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Who was heard of when."""

    now: datetime
    """PostgreSQL's time, which the others are to be compared with."""
    beat: datetime | None
    """When a sweep that beat asked for last reached a worker."""
    sweep: datetime | None
    """When a sweep, of beat or of `deliver_due`, last came to its end."""
    workers: int
    """Worker processes heard of within the last minute."""


def seen() -> Seen:
    """Return who was heard of when. Raises DatabaseError when PostgreSQL is away."""
    with connection.cursor() as cursor:
        cursor.execute(_SEEN)
        now, beat_at, sweep_at, workers = cursor.fetchone()
    return Seen(now=now, beat=beat_at, sweep=sweep_at, workers=workers)


def beat(pulse: Pulse) -> None:
    """Note that this one is alive, unless this process did a moment ago. Never raises: it is only a note."""
    if turn(pulse):
        write(pulse)


def turn(pulse: Pulse) -> bool:
    """Tell whether it is time for this process to write again; whoever is told so has to."""
    now = time.monotonic()
    if now - _turns.get(pulse, -EVERY) < EVERY:
        return False
    _turns[pulse] = now
    return True


def write(pulse: Pulse) -> None:
    """Note it now. Never raises."""
    name = worker_name() if pulse == Pulse.WORKER else pulse.value
    _execute(_BEAT, {"name": name[-191:], "kind": pulse.value})


def forget_worker() -> None:
    """Take this process off the list. Never raises."""
    _execute("DELETE FROM notification_heartbeats WHERE name = %(name)s", {"name": worker_name()[-191:]})


def _execute(sql: str, parameters: dict[str, str]) -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
    except Error as error:
        # The type only: the text may name the database's address.
        logger.warning("heartbeat not written: %s", type(error).__name__, extra={"event": "heartbeat.failed"})
