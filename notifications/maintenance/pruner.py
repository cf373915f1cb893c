"""Retention: delete what has been final for long, in batches so small that nobody has to wait for one."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from notifications.states import FINAL

logger = logging.getLogger("notifications.retention")

BATCH = 500
"""Rows one transaction deletes: some ten milliseconds."""
LONGEST_REST = 1.0
"""Between two batches a purge rests as long as the last one took, up to this many seconds: deliveries come first."""
MAX_DAYS = 36_500
"""A hundred years; beyond it calendars end, and nothing is that old."""


@dataclass(slots=True)
class Purged:
    """What a purge deleted, or what one would delete."""

    records: int = 0
    dead: int = 0
    """Those of the records that were dead: nobody replayed them in all that time."""
    attempts: int = 0
    rejected: int = 0
    jobs: int = 0
    """Due jobs that were done."""
    more: bool = False
    """Whether it ended early: its time was up or it was to stop, and rows may be left."""


# A record is as old as its last change, so that one which was scheduled far ahead or replayed lately is not old. It was
# created before it was changed, so that created_at, which has an index, finds all of them.
_OLD_RECORD = "created_at < %(before)s AND updated_at < %(before)s AND status = ANY(%(final)s)"
_OLD_REJECTED = "created_at < %(before)s"

# `since` skips what earlier batches have deleted: until a vacuum it still is in the index. Rows that are locked, by a
# replay for one, are left to the next run; one that changed before we had its lock is judged anew by PostgreSQL.
PURGE_RECORDS = f"""
WITH old AS (
    SELECT id FROM notification_records
    WHERE created_at >= COALESCE(%(since)s, '-infinity'::timestamptz) AND {_OLD_RECORD}
    ORDER BY created_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), attempts AS (
    DELETE FROM notification_delivery_attempts WHERE record_id = ANY(ARRAY(SELECT id FROM old)) RETURNING id
), gone AS (
    DELETE FROM notification_records WHERE id = ANY(ARRAY(SELECT id FROM old)) RETURNING status, created_at
)
SELECT count(*), count(*) FILTER (WHERE status = 'dead'), (SELECT count(*) FROM attempts), 0, 0, max(created_at)
FROM gone
"""  # noqa: S608  our own words

PURGE_REJECTED = f"""
WITH old AS (
    SELECT id FROM notification_rejected_requests
    WHERE created_at >= COALESCE(%(since)s, '-infinity'::timestamptz) AND {_OLD_REJECTED}
    ORDER BY created_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM notification_rejected_requests WHERE id = ANY(ARRAY(SELECT id FROM old)) RETURNING created_at
)
SELECT 0, 0, 0, count(*), 0, max(created_at) FROM gone
"""  # noqa: S608  our own words

PURGE_JOBS = """
WITH old AS (
    SELECT id FROM notification_due_jobs
    WHERE done_at >= COALESCE(%(since)s, '-infinity'::timestamptz) AND done_at < %(before)s
    ORDER BY done_at
    LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM notification_due_jobs WHERE id = ANY(ARRAY(SELECT id FROM old)) RETURNING done_at
)
SELECT 0, 0, 0, 0, count(*), max(done_at) FROM gone
"""

_COUNT = f"""
WITH old AS MATERIALIZED (SELECT id, status FROM notification_records WHERE {_OLD_RECORD})
SELECT count(*), count(*) FILTER (WHERE status = 'dead'),
       (SELECT count(*) FROM notification_delivery_attempts JOIN old ON old.id = record_id),
       (SELECT count(*) FROM notification_rejected_requests WHERE {_OLD_REJECTED}),
       (SELECT count(*) FROM notification_due_jobs WHERE done_at < %(before)s)
FROM old
"""  # noqa: S608  our own words


def cutoff(days: int) -> datetime:
    """Return the time `days` ago by PostgreSQL's clock: a machine whose clock is wrong must not delete the present."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp() - make_interval(days => %s)", [min(days, MAX_DAYS)])
        before: datetime = cursor.fetchone()[0]
    return before


def purge(
    before: datetime,
    *,
    budget: float = math.inf,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[Purged], object] = lambda done: None,
) -> Purged:
    """Delete final records last changed before this time, with their attempts; rejected requests and done jobs as old.

    budget: seconds after which no further batch is begun. should_stop: asked before each batch.
    progress: told after each batch what was deleted so far.
    Any number may run at once, beside any number of drains. Raises RuntimeError inside a transaction of the caller: it
    would keep the locks of every batch. Raises DatabaseError if a batch failed; the ones before it stay done.
    """
    done, deadline = Purged(), time.monotonic() + budget
    try:
        for statement in (PURGE_RECORDS, PURGE_REJECTED, PURGE_JOBS):
            since, taken = None, BATCH
            while taken == BATCH:
                if should_stop() or time.monotonic() >= deadline:
                    done.more = True
                    return done
                began = time.monotonic()
                taken, since = _batch(statement, before, since, done)
                progress(done)
                if taken == BATCH:
                    time.sleep(min(time.monotonic() - began, LONGEST_REST))
        return done
    finally:
        _log(done, before)


def count_old(before: datetime) -> Purged:
    """Return what purge() would delete, and delete nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_COUNT, _parameters(before))
        return Purged(*cursor.fetchone())


def _batch(statement: str, before: datetime, since: datetime | None, done: Purged) -> tuple[int, datetime | None]:
    """Delete one batch in a transaction of its own; return its size and how far it came."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(statement, _parameters(before) | {"since": since, "batch": BATCH})
        records, dead, attempts, rejected, jobs, last = cursor.fetchone()
    done.records += records
    done.dead += dead
    done.attempts += attempts
    done.rejected += rejected
    done.jobs += jobs
    return records + rejected + jobs, last


def _parameters(before: datetime) -> dict[str, Any]:
    return {"before": before, "final": list(map(str, FINAL))}


def _log(done: Purged, before: datetime) -> None:
    if not (done.records or done.rejected or done.jobs):
        return
    logger.info(
        "purged %d records, %d rejected requests",
        done.records,
        done.rejected,
        extra={
            "event": "retention.purged",
            "records": done.records,
            "dead": done.dead,
            "attempts": done.attempts,
            "rejected": done.rejected,
            "jobs": done.jobs,
            "before": before.isoformat(),
            "more": done.more,
        },
    )
