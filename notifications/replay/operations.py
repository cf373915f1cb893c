"""Creation and cancellation of replay operations. `runner` runs them."""

from __future__ import annotations

import json
import logging
from datetime import datetime

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from notifications.broker.nudge import nudge_replays
from notifications.clock import database_now
from notifications.content.text import escape_invisible
from notifications.exceptions import NotificationError
from notifications.models import ReplayOperation
from notifications.replay.criteria import Criteria, InvalidCriteria, Problem
from notifications.states import UNFINISHED, OperationStatus
from notifications.telemetry.audit import ADDITION, CHANGE, add_admin_log
from notifications.user_keys import plain_user_key

logger = logging.getLogger("notifications.replays")

MAX_RATE_PER_MINUTE = 60_000
"""Largest rate. Without a limit, an operation may be faster."""
MAX_REASON_CHARACTERS = 500


class OperationExists(NotificationError, ValueError):
    """An operation with the same criteria is running, or the same order was given before. Nothing was created.

    Args:
        operation: The operation that exists.
    """

    def __init__(self, operation: ReplayOperation) -> None:
        self.operation = operation
        super().__init__(f"replay operation {operation.pk} is the same")


def create_operation(
    criteria: Criteria,
    actor: AbstractBaseUser | None,
    reason: str,
    *,
    rate: int | None = None,
    as_of: datetime | None = None,
) -> ReplayOperation:
    """Create a replay operation for the records that match now. Workers start it once the transaction has committed.

    Args:
        criteria: Conditions on the records.
        actor: The user who starts the replay; None for code.
        reason: The reason, 1 to 500 characters.
        rate: Largest number of records per minute, 1 to 60,000; None for no limit.
        as_of: Records that changed after this time are not replayed; now, by PostgreSQL's clock, by default.

    Returns:
        The stored operation.

    Raises:
        InvalidCriteria: The reason, the rate or the time is not valid.
        OperationExists: An unfinished operation has the same criteria, or any one the same criteria and time, because a
            form was sent twice.
    """
    reason = reason.strip()
    if errors := _problems(reason, rate, as_of):
        raise InvalidCriteria(errors)
    with transaction.atomic():
        with connection.cursor() as cursor:  # two people, or two clicks, at the same moment
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [json.dumps(criteria.as_json())])
        now = database_now()
        cutoff = min(as_of, now) if as_of else now
        same = ReplayOperation.objects.filter(criteria=criteria.as_json())
        if existing := same.filter(Q(status__in=UNFINISHED) | Q(as_of=cutoff)).order_by("-pk").first():
            raise OperationExists(existing)
        operation = ReplayOperation.objects.create(
            created_by_id=actor.pk if actor else None,
            reason=reason,
            criteria=criteria.as_json(),
            as_of=cutoff,
            rate=rate,
            matched=criteria.select(cutoff).count(),
        )
        if actor:
            add_admin_log(actor, [operation], ADDITION, escape_invisible(f"Ordered: {reason}"))
        transaction.on_commit(_wake_workers, robust=True)
    log_operation(operation, OperationStatus.QUEUED, actor)
    return operation


def cancel_operation(operation: ReplayOperation, actor: AbstractBaseUser | None) -> bool:
    """Cancel an operation. A batch that is running is finished first.

    Args:
        operation: The operation.
        actor: The user who cancels it, for the admin's log; None for code.

    Returns:
        Whether the operation was unfinished.
    """
    with transaction.atomic():
        stopped = ReplayOperation.objects.filter(pk=operation.pk, status__in=UNFINISHED).update(
            status=OperationStatus.CANCELLED, next_batch_at=None, finished_at=Now()
        )
        if stopped and actor:
            add_admin_log(actor, [operation], CHANGE, "Cancelled")
    if stopped:
        log_operation(operation, OperationStatus.CANCELLED, actor)
    return bool(stopped)


def _problems(reason: str, rate: int | None, as_of: datetime | None) -> list[Problem]:
    errors: list[Problem] = []
    if not reason or len(reason) > MAX_REASON_CHARACTERS or "\x00" in reason:
        errors.append(("reason", _("must be a text of 1 to 500 characters, without NUL")))
    if rate is not None and not 1 <= rate <= MAX_RATE_PER_MINUTE:
        errors.append(("rate", _("must be a whole number from 1 to 60000")))
    if as_of is not None and as_of.utcoffset() is None:
        errors.append(("as_of", _("must be a time with a time zone")))
    return errors


def _wake_workers() -> None:
    # Not a lambda: Django reads the __qualname__ of a robust hook that fails.
    nudge_replays()


def log_operation(operation: ReplayOperation, status: OperationStatus, actor: AbstractBaseUser | None) -> None:
    """Log that an operation has reached a status.

    Args:
        operation: The operation, with its current counts.
        status: The status that it has reached.
        actor: The user who caused it; None for the operation's creator.
    """
    logger.info(
        "replay operation %d: %s",
        operation.pk,
        status.value,
        extra={
            "event": f"replay.{status.value}",
            "operation_id": operation.pk,
            "actor_id": plain_user_key(actor.pk if actor else operation.created_by_id),
            "matched": operation.matched,
            "done": operation.done,
        },
    )
