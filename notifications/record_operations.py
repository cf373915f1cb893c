"""The operations of operators on records: replay, cancel, send now.

An operation changes rows and sends nothing. The next claim sees the new state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.db.models import Case, F, Value, When
from django.db.models.functions import Now

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.content.text import escape_invisible
from notifications.lifecycle.events import write_events
from notifications.models import NotificationRecord, ReplayOperation
from notifications.ordering.key_order import let_next_go, order_keys
from notifications.querysets import NotificationQuerySet
from notifications.states import HELD_BY_ENDPOINT, ErrorCode, HoldReason, Status
from notifications.telemetry.audit import CHANGE, add_admin_log
from notifications.user_keys import plain_user_key

logger = logging.getLogger("notifications.service")

OPERATION_BATCH_RECORDS = 500
"""Records that an operation changes in one transaction, so that no row is locked for long."""
_PLANNED_OR_NOT_HELD = Case(When(hold_reason=HoldReason.RATE_LIMITED, then=F("hold_reason")), default=Value(""))
"""A record with a place in the plan of its endpoint keeps it. Otherwise it would be planned anew, as the last one."""
_COLUMNS = ("channel", "dedupe_key", "order_key", "hold_reason")
Progress = Callable[[int, int], object]
"""Called after each batch with the number of processed records and the number of all records."""


class RecordOperations:
    """Changes selected records in batches. Each change is logged, and written to the admin's log if a user did it."""

    options: ServiceOptions
    clock: Clock | None

    def replay(
        self,
        records: NotificationQuerySet[NotificationRecord],
        actor: AbstractBaseUser | None,
        reason: str,
        *,
        force: bool = False,
        progress: Progress | None = None,
        operation: ReplayOperation | None = None,
    ) -> int:
        """Make records pending again, with a new budget of attempts. Their attempts stay.

        Dead and skipped records are replayed. A record whose status changes before its row is locked is not changed.

        Args:
            records: The selected records.
            actor: The user who replays them, for the admin's log; None for code.
            reason: The reason, for the admin's log and the service's log.
            force: Also replay sent and cancelled records. The recipient then gets a sent message twice.
            progress: Called after each batch.
            operation: The replay operation whose batch this is. The records refer to it.

        Returns:
            The number of replayed records.
        """
        return self._change_in_batches(
            records.replayable(force=force),
            select=lambda batch: batch.replayable(force=force),
            changes={
                "status": Status.PENDING,
                "attempt_count": 0,
                "max_attempts": self.options.max_attempts,
                "round": F("round") + 1,
                "next_attempt_at": self._now(),
                "hold_reason": "",
            }
            | ({"replay_operation": operation} if operation else {}),
            actor=actor,
            signal=lambda record: "replayed",
            message=f"Replayed{' (forced)' if force else ''}: {reason}",
            progress=progress,
        )

    def cancel(
        self, records: NotificationQuerySet[NotificationRecord], actor: AbstractBaseUser | None, reason: str
    ) -> int:
        """Cancel pending and failed records. Records that are being sent or are final are not changed.

        Dead ones that block their order key (ORDER_AFTER_DEAD) are cancelled, too. The next record of an order key
        becomes due after the commit.

        Args:
            records: The selected records.
            actor: The user who cancels them, for the admin's log; None for code.
            reason: The reason, for the admin's log and the service's log.

        Returns:
            The number of cancelled records.
        """
        return self._change_in_batches(
            records.cancellable(),
            select=lambda batch: batch.cancellable(),
            changes={
                "status": Status.SKIPPED,
                "last_error_code": ErrorCode.CANCELLED,
                "last_error": "",
                "next_attempt_at": None,
                "hold_reason": "",
            },
            actor=actor,
            signal=lambda record: "skipped",
            message=f"Cancelled: {reason}",
            lets_next_go=True,
        )

    def send_now(
        self, records: NotificationQuerySet[NotificationRecord], actor: AbstractBaseUser | None, reason: str
    ) -> int:
        """Make records due now that wait for a later time. The next claim sends them.

        Their attempt count is not reset.

        Args:
            records: The selected records.
            actor: The user who does it, for the admin's log; None for code.
            reason: The reason, for the admin's log and the service's log.

        Returns:
            The number of records that became due.
        """
        return self._change_in_batches(
            records.deferred(),
            select=lambda batch: batch.deferred(),
            changes={"next_attempt_at": self._now(), "hold_reason": _PLANNED_OR_NOT_HELD},
            actor=actor,
            signal=lambda record: "released" if record.hold_reason in HELD_BY_ENDPOINT else "",
            message=f"Sent now: {reason}",
        )

    def _change_in_batches(
        self,
        records: NotificationQuerySet[NotificationRecord],
        *,
        select: Callable[[NotificationQuerySet[NotificationRecord]], NotificationQuerySet[NotificationRecord]],
        changes: dict[str, Any],
        signal: Callable[[NotificationRecord], str],
        actor: AbstractBaseUser | None,
        message: str,
        progress: Progress | None = None,
        lets_next_go: bool = False,
    ) -> int:
        """Change records in batches.

        `select` filters each batch again under its row locks, because a record may have changed since its id was read.
        `signal` names the signal of a record, from what it held before the change; empty for none.
        """
        ids = list(records.order_by("pk").values_list("pk", flat=True))
        message, changed = escape_invisible(message), 0
        actor_id = plain_user_key(actor.pk) if actor else None
        for start in range(0, len(ids), OPERATION_BATCH_RECORDS):
            with transaction.atomic():
                batch = NotificationRecord.objects.filter(pk__in=ids[start : start + OPERATION_BATCH_RECORDS])
                locked = list(select(batch).select_for_update().order_by("pk").only("pk", *_COLUMNS))
                locked_rows = NotificationRecord.objects.filter(pk__in=[record.pk for record in locked])
                changed += locked_rows.update(updated_at=self._now(), **changes)
                write_events((record.pk, signal(record)) for record in locked)
                if actor is not None:
                    add_admin_log(actor, locked, CHANGE, message)
                if lets_next_go and (keys := order_keys(locked)):
                    # Not before the commit: the caller's transaction may last, and the settlements of these keys would
                    # wait for it.
                    transaction.on_commit(partial(let_next_go, keys, self.clock))
            for record in locked:
                logger.info(
                    "record %d: %s",
                    record.pk,
                    message,
                    extra={"event": "record.operated", "record_id": record.pk, "actor_id": actor_id},
                )
            if progress:
                progress(min(start + OPERATION_BATCH_RECORDS, len(ids)), len(ids))
        return changed

    def _now(self) -> Any:
        return self.clock() if self.clock else Now()
