"""The runner of replay operations: batches, by any number of processes.

A batch is one transaction: it holds the operation's row (`FOR UPDATE SKIP LOCKED`), replays the next records, notes how
far it came and when the next batch may be. So the row's lock is the lease: a worker that dies takes back all of its
batch and lets go, nobody else runs the same operation meanwhile, and the rate holds for all processes together. No
message goes out in a batch, it takes milliseconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now

from notifications.api import replay_notifications
from notifications.models import NotificationRecord, ReplayOperation
from notifications.replay.criteria import Criteria
from notifications.replay.operations import log_operation
from notifications.states import UNFINISHED, OperationStatus

logger = logging.getLogger("notifications.replays")

BATCH = 500
"""Records of one batch at most: some hundred milliseconds, in which others wait for these records."""
LOOK_AGAIN = 0.2
"""Seconds until a look for what another process holds."""
PUT_OFF = timedelta(seconds=30)
"""When a batch that the database refused is tried again."""


def run(
    budget: float,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    only: ReplayOperation | None = None,
) -> None:
    """Run batches as they become due, until nothing is left to run.

    budget: seconds after which no further batch is begun. should_stop: asked before each. only: no other operation.
    Raises RuntimeError inside a transaction of the caller, and DatabaseError where PostgreSQL is away.
    """
    deadline = time.monotonic() + budget
    while not should_stop():
        ran = step(only)
        wait = 0.0 if ran else _seconds_to_next(only)
        left = deadline - time.monotonic()
        if wait is None or left <= 0:
            return
        if not ran:
            time.sleep(min(max(wait, LOOK_AGAIN), left, 1.0))


def step(only: ReplayOperation | None = None) -> bool:
    """Run one batch of the operation that has waited longest for its next. Returns whether there was one."""
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
        _put_off(operation, error)
    except Exception as error:
        if operation is None:
            raise
        logger.exception("replay operation %d broken off", operation.pk, extra={"event": "replay.failed"})
        _end(operation, OperationStatus.FAILED, error=type(error).__name__)
    else:
        if operation.status == OperationStatus.DONE:
            log_operation(operation, OperationStatus.DONE, None)
    return True


def run_batch(operation: ReplayOperation) -> None:
    """Replay the next records of an operation whose row is ours, and note how far it is."""
    criteria = Criteria.from_json(operation.criteria)
    size, pause = pace(operation.rate)
    rows = _next_records(operation, criteria, size)
    if rows:
        operation.cursor_id, operation.cursor_at = rows[-1]
        operation.done += replay_notifications(
            NotificationRecord.objects.filter(pk__in=[pk for pk, _walked in rows]),
            _actor(operation),
            operation.reason,
            force=criteria.force,
            operation=operation,
        )
    more = len(rows) == size
    operation.status = OperationStatus.RUNNING if more else OperationStatus.DONE
    ReplayOperation.objects.filter(pk=operation.pk).update(
        status=operation.status,
        done=operation.done,
        cursor_at=operation.cursor_at,
        cursor_id=operation.cursor_id,
        next_batch_at=Now() + timedelta(seconds=pause) if more else None,
        error="",
        started_at=Coalesce(F("started_at"), Now()),
        finished_at=None if more else Now(),
    )


def pace(rate: int | None) -> tuple[int, float]:
    """Return how many records a batch takes and the seconds between two, so that no minute has more than `rate`."""
    if rate is None:
        return BATCH, 0.0
    size = min(BATCH, max(1, rate // 60))
    return size, 60 / (rate // size)


def _next_records(operation: ReplayOperation, criteria: Criteria, size: int) -> list[tuple[int, datetime]]:
    """Lock the next records. Whoever changed one before we had its lock has taken it out of the selection."""
    walk = criteria.walk
    records = criteria.select(operation.as_of)
    if operation.cursor_at is not None:
        records = records.filter(
            Q(**{f"{walk}__gt": operation.cursor_at}) | Q(pk__gt=operation.cursor_id),
            **{f"{walk}__gte": operation.cursor_at},
        )
    return list(records.order_by(walk, "pk").select_for_update().values_list("pk", walk)[:size])


def _actor(operation: ReplayOperation) -> AbstractBaseUser | None:
    """Return who ordered it; None also for somebody who was deleted since."""
    if operation.created_by_id is None:
        return None
    return get_user_model()._default_manager.filter(pk=operation.created_by_id).first()


def _seconds_to_next(only: ReplayOperation | None) -> float | None:
    unfinished = ReplayOperation.objects.filter(next_batch_at__isnull=False, **({"pk": only.pk} if only else {}))
    wait: Any = unfinished.order_by("next_batch_at").values_list(F("next_batch_at") - Now(), flat=True).first()
    return None if wait is None else float(wait.total_seconds())


def _put_off(operation: ReplayOperation, error: Exception) -> None:
    name = type(error).__name__  # the type only: the text may name the database's address
    logger.warning(
        "replay operation %d put off: %s", operation.pk, name, extra={"event": "replay.put_off", "error": name}
    )
    ReplayOperation.objects.filter(pk=operation.pk, status__in=UNFINISHED).update(
        next_batch_at=Now() + PUT_OFF, error=name
    )


def _end(operation: ReplayOperation, status: OperationStatus, *, error: str) -> None:
    ReplayOperation.objects.filter(pk=operation.pk, status__in=UNFINISHED).update(
        status=status, next_batch_at=None, finished_at=Now(), error=error
    )
