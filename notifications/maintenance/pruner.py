"""Retention: deletes old final rows, in batches so small that other processes do not wait."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connection, transaction
from django.db.models import Count, Q

from notifications.clock import database_now
from notifications.models import DeliveryAttempt, DueJob, NotificationEvent, NotificationRecord, RejectedRequest
from notifications.sql import load_sql
from notifications.states import FINAL, Status

logger = logging.getLogger("notifications.retention")

BATCH_ROWS = 500
"""Rows that one transaction deletes. A batch takes tens of milliseconds."""
MAX_PAUSE_SECONDS = 1.0
"""Longest pause after a batch. A purge pauses for as long as the batch took, so that deliveries have priority."""
MAX_RETENTION_DAYS = 36_500
"""A hundred years. A longer time could be before the first date that Python supports."""
STATEMENTS = ("purge_records", "purge_rejected_requests", "purge_due_jobs", "purge_events")


@dataclass(slots=True)
class PurgeCounts:
    """What a purge deleted, or what it would delete."""

    records: int = 0
    dead: int = 0
    """Deleted records whose status was dead. They were not replayed during the retention period."""
    attempts: int = 0
    rejected: int = 0
    jobs: int = 0
    """Due jobs that had been published."""
    signals: int = 0
    """Signals that were given up."""
    has_more: bool = False
    """Whether the purge ended early, so that old rows may remain."""


def retention_cutoff(days: int) -> datetime:
    """Return the time before which rows are old, by PostgreSQL's clock.

    PostgreSQL's clock is used, because a wrong clock of this machine would delete recent rows.

    Args:
        days: Number of days that rows are kept.
    """
    return database_now() - timedelta(days=min(days, MAX_RETENTION_DAYS))


def purge(
    before: datetime,
    *,
    budget: float = math.inf,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[PurgeCounts], object] = lambda counts: None,
) -> PurgeCounts:
    """Delete old rows: final records with their attempts, rejected requests, done jobs, and signals that were given up.

    Any number of purges may run at once, beside any number of drains. Batches that are committed stay deleted, whatever
    happens to later ones.

    Args:
        before: Rows whose last change is older than this time are deleted.
        budget: Seconds after which no further batch starts.
        should_stop: Called before each batch. True ends the purge.
        progress: Called after each batch with the counts so far.

    Returns:
        The counts of deleted rows.

    Raises:
        RuntimeError: The caller has a transaction open. It would keep the row locks of every batch.
        DatabaseError: A batch failed.
    """
    counts, deadline = PurgeCounts(), time.monotonic() + budget
    try:
        for statement in STATEMENTS:
            since, deleted = None, BATCH_ROWS
            while deleted == BATCH_ROWS:
                if should_stop() or time.monotonic() >= deadline:
                    counts.has_more = True
                    return counts
                started = time.monotonic()
                deleted, since = _delete_batch(statement, before, since, counts)
                progress(counts)
                if deleted == BATCH_ROWS:
                    time.sleep(min(time.monotonic() - started, MAX_PAUSE_SECONDS))
        return counts
    finally:
        _log(counts, before)


def count_old(before: datetime) -> PurgeCounts:
    """Return the counts of rows that `purge(before)` would delete. Deletes nothing."""
    old = Q(created_at__lt=before, updated_at__lt=before, status__in=FINAL)
    records = NotificationRecord.objects.filter(old).aggregate(
        records=Count("pk"), dead=Count("pk", filter=Q(status=Status.DEAD))
    )
    return PurgeCounts(
        **records,
        attempts=DeliveryAttempt.objects.filter(
            record__created_at__lt=before, record__updated_at__lt=before, record__status__in=FINAL
        ).count(),
        rejected=RejectedRequest.objects.filter(created_at__lt=before).count(),
        jobs=DueJob.objects.filter(done_at__lt=before).count(),
        signals=NotificationEvent.objects.filter(occurred_at__lt=before, next_attempt_at=None).count(),
    )


def _delete_batch(
    statement: str, before: datetime, since: datetime | None, counts: PurgeCounts
) -> tuple[int, datetime | None]:
    """Delete one batch in a transaction of its own. Return its number of rows and the time of its last row."""
    parameters = {"before": before, "since": since, "batch": BATCH_ROWS, "final": list(map(str, FINAL))}
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute(load_sql("notifications.maintenance", statement), parameters)
        records, dead, attempts, rejected, jobs, signals, last_time = cursor.fetchone()
    counts.records += records
    counts.dead += dead
    counts.attempts += attempts
    counts.rejected += rejected
    counts.jobs += jobs
    counts.signals += signals
    return records + rejected + jobs + signals, last_time


def _log(counts: PurgeCounts, before: datetime) -> None:
    if not (counts.records or counts.rejected or counts.jobs or counts.signals):
        return
    logger.info(
        "purged %d records, %d rejected requests",
        counts.records,
        counts.rejected,
        extra={
            "event": "retention.purged",
            "records": counts.records,
            "dead": counts.dead,
            "attempts": counts.attempts,
            "rejected": counts.rejected,
            "jobs": counts.jobs,
            "signals": counts.signals,
            "before": before.isoformat(),
            "more": counts.has_more,
        },
    )
