"""Runs the batches of replay operations. Any number of processes may run them at once.

A batch is one transaction. It locks the operation's row (`FOR UPDATE SKIP LOCKED`), replays the next records, and
stores its cursor and the time of the next batch. The row lock is the lease: if a worker dies, its whole batch rolls
back and the lock ends; no other process runs the same operation meanwhile; the rate holds for all processes together.
A batch sends no message and takes milliseconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now

from notifications.api import replay_notifications
from notifications.models import NotificationRecord, ReplayOperation
from notifications.querysets import primary_users
from notifications.replay.criteria import Criteria
from notifications.replay.operations import log_operation
from notifications.states import UNFINISHED, OperationStatus

logger = logging.getLogger("notifications.replays")

MAX_BATCH_RECORDS = 500
"""A batch takes some hundred milliseconds, during which its records are locked."""
LOCKED_RECHECK_SECONDS = 0.2
"""Seconds after which a run checks again whether another process still holds an operation."""
RETRY_DELAY = timedelta(seconds=30)
"""Delay after a batch that failed with a database error."""


def run_due_batches(
    budget: float,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    only: ReplayOperation | None = None,
) -> None:
    """Run batches as they become due, until no operation is left.

    Args:
        budget: Seconds after which no further batch starts.
        should_stop: Called before each batch. True ends the run.
        only: Run this operation and no other.

    Raises:
        RuntimeError: The caller has a transaction open.
        DatabaseError: PostgreSQL is unavailable.
    """
    deadline = time.monotonic() + budget
    while not should_stop():
        ran = run_next_batch(only)
        wait = 0.0 if ran else _seconds_to_next(only)
        remaining = deadline - time.monotonic()
        if wait is None or remaining <= 0:
            return
        if not ran:
            time.sleep(min(max(wait, LOCKED_RECHECK_SECONDS), remaining, 1.0))


def run_next_batch(only: ReplayOperation | None = None) -> bool:
    """Run one batch of the operation whose next batch is longest overdue.

    Args:
        only: Consider this operation and no other.

    Returns:
        Whether a batch was due.
    """
    operation = None
    try:
        with transaction.atomic(durable=True):
            due = ReplayOperation.objects.filter(next_batch_at__lte=Now(), **({"pk": only.pk} if only else {}))
            operation = due.order_by("next_batch_at", "pk").select_for_update(skip_locked=True).first()
            if operation is None:
                return False
            run_batch(operation)
    except (OperationalError, InterfaceError) as error:
        if operation is None:
            raise
        _retry_later(operation, error)
    except Exception as error:
        if operation is None:
            raise
        logger.exception("replay operation %d stopped by an error", operation.pk, extra={"event": "replay.failed"})
        _finish(operation, OperationStatus.FAILED, error=type(error).__name__)
    else:
        if operation.status == OperationStatus.DONE:
            log_operation(operation, OperationStatus.DONE, None)
    return True


def run_batch(operation: ReplayOperation) -> None:
    """Replay the next records of an operation whose row is locked by the caller, and store its progress."""
    criteria = Criteria.from_json(operation.criteria)
    size, pause = batch_size_and_pause(operation.rate)
    rows = _next_records(operation, criteria, size)
    if rows:
        operation.cursor_id, operation.cursor_at = rows[-1]
        operation.done += replay_notifications(
            NotificationRecord.objects.filter(pk__in=[pk for pk, _time in rows]),
            _actor(operation),
            operation.reason,
            force=criteria.force,
            operation=operation,
        )
    has_more = len(rows) == size
    operation.status = OperationStatus.RUNNING if has_more else OperationStatus.DONE
    ReplayOperation.objects.filter(pk=operation.pk).update(
        status=operation.status,
        done=operation.done,
        cursor_at=operation.cursor_at,
        cursor_id=operation.cursor_id,
        next_batch_at=Now() + timedelta(seconds=pause) if has_more else None,
        error="",
        started_at=Coalesce(F("started_at"), Now()),
        finished_at=None if has_more else Now(),
    )


def batch_size_and_pause(rate: int | None) -> tuple[int, float]:
    """Return the size of a batch and the pause between two batches, so that no minute has more than `rate` records.

    Args:
        rate: Largest number of records per minute; None for no limit.

    Returns:
        Records per batch, and seconds from one batch to the next.
    """
    if rate is None:
        return MAX_BATCH_RECORDS, 0.0
    size = min(MAX_BATCH_RECORDS, max(1, rate // 60))
    return size, 60 / (rate // size)


def _next_records(operation: ReplayOperation, criteria: Criteria, size: int) -> list[tuple[int, datetime]]:
    """Lock the next records. A record that changed before it was locked no longer matches the criteria."""
    field = criteria.cursor_field
    records = criteria.select(operation.as_of)
    if operation.cursor_at is not None:
        records = records.filter(
            Q(**{f"{field}__gt": operation.cursor_at}) | Q(pk__gt=operation.cursor_id),
            **{f"{field}__gte": operation.cursor_at},
        )
    return list(records.order_by(field, "pk").select_for_update().values_list("pk", field)[:size])


def _actor(operation: ReplayOperation) -> AbstractBaseUser | None:
    """Return the user who ordered the operation; None if it was code or the user was deleted."""
    if operation.created_by_id is None:
        return None
    return primary_users().filter(pk=operation.created_by_id).first()


def _seconds_to_next(only: ReplayOperation | None) -> float | None:
    unfinished = ReplayOperation.objects.filter(next_batch_at__isnull=False, **({"pk": only.pk} if only else {}))
    wait: Any = unfinished.order_by("next_batch_at").values_list(F("next_batch_at") - Now(), flat=True).first()
    return None if wait is None else float(wait.total_seconds())


def _retry_later(operation: ReplayOperation, error: Exception) -> None:
    name = type(error).__name__  # the type only: the text may name the database's address
    logger.warning(
        "replay operation %d put off: %s", operation.pk, name, extra={"event": "replay.put_off", "error": name}
    )
    ReplayOperation.objects.filter(pk=operation.pk, status__in=UNFINISHED).update(
        next_batch_at=Now() + RETRY_DELAY, error=name
    )


def _finish(operation: ReplayOperation, status: OperationStatus, *, error: str) -> None:
    ReplayOperation.objects.filter(pk=operation.pk, status__in=UNFINISHED).update(
        status=status, next_batch_at=None, finished_at=Now(), error=error
    )
