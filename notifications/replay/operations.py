"""Replay operations: an order to replay whatever matches, as of now. replay_runner.py carries it out."""

from __future__ import annotations

import logging
from datetime import datetime

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from notifications.broker.nudge import nudge_replays
from notifications.clock import database_now
from notifications.content.text import escape_invisible
from notifications.models import ReplayOperation
from notifications.replay.criteria import Criteria, InvalidCriteria, Problem
from notifications.states import UNFINISHED, OperationStatus
from notifications.telemetry.audit import ADDITION, CHANGE, add_admin_log

logger = logging.getLogger("notifications.replays")

FASTEST = 60_000
"""Records per minute; faster is without a limit."""
LONGEST_REASON = 500


def create(
    criteria: Criteria,
    actor: AbstractBaseUser | None,
    reason: str,
    *,
    rate: int | None = None,
    as_of: datetime | None = None,
) -> ReplayOperation:
    """Order a replay of what matches now; workers begin when the transaction has committed.

    rate: records per minute at most; None: no limit. as_of: leave alone what changed after this time, by PostgreSQL's
    clock; now by default.
    Raises InvalidCriteria naming a reason, rate or time that cannot be used.
    """
    reason = reason.strip()
    if errors := _problems(reason, rate, as_of):
        raise InvalidCriteria(errors)
    with transaction.atomic():
        now = database_now()
        frozen = min(as_of, now) if as_of else now
        operation = ReplayOperation.objects.create(
            created_by_id=actor.pk if actor else None,
            reason=reason,
            criteria=criteria.as_json(),
            as_of=frozen,
            rate=rate,
            matched=criteria.select(frozen).count(),
        )
        if actor:
            add_admin_log(actor, [operation], ADDITION, escape_invisible(f"Ordered: {reason}"))
        transaction.on_commit(_call_workers, robust=True)
    log_operation(operation, OperationStatus.QUEUED, actor)
    return operation


def cancel(operation: ReplayOperation, actor: AbstractBaseUser | None) -> bool:
    """Stop an operation. A batch under way is finished first. Returns whether there was anything left to stop."""
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
    if not reason or len(reason) > LONGEST_REASON or "\x00" in reason:
        errors.append(("reason", _("must be a text of 1 to 500 characters, without NUL")))
    if rate is not None and not 1 <= rate <= FASTEST:
        errors.append(("rate", _("must be a whole number from 1 to 60000")))
    if as_of is not None and as_of.utcoffset() is None:
        errors.append(("as_of", _("must be a time with its zone")))
    return errors


def _call_workers() -> None:
    # A named function: Django's handler for a failing robust hook reads its __qualname__.
    nudge_replays()


def log_operation(operation: ReplayOperation, status: OperationStatus, actor: AbstractBaseUser | None) -> None:
    """Write the log line of an operation that came to this status."""
    logger.info(
        "replay operation %d: %s",
        operation.pk,
        status.value,
        extra={
            "event": f"replay.{status.value}",
            "operation_id": operation.pk,
            "actor_id": actor.pk if actor else operation.created_by_id,
            "matched": operation.matched,
            "done": operation.done,
        },
    )
