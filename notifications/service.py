"""Accepting requests, and what operators may do to records. The vocabulary is the Go service's."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from notifications.broker.redis_client import gateway
from notifications.clock import Clock
from notifications.conf import ServiceOptions, service_options
from notifications.content.text import escape_invisible
from notifications.delivery.engine import Engine, RetryResult
from notifications.delivery.locks import Locks, lock_key
from notifications.ingest.insert import Accepted, DeliveryWindow, insert_requests
from notifications.ingest.payload import parse_payload
from notifications.ingest.validation import InvalidNotification
from notifications.models import NotificationRecord, RejectedRequest, ReplayOperation
from notifications.providers.base import Provider
from notifications.querysets import NotificationQuerySet, max_user_id
from notifications.security.log_redaction import redact_text
from notifications.states import ErrorCode, Status
from notifications.telemetry.audit import CHANGE, add_admin_log

logger = logging.getLogger("notifications.service")

OPERATION_BATCH = 500
"""Records an operator's action changes per transaction, so that no row is locked for long."""
Progress = Callable[[int, int], object]
"""Told after each batch how many records were gone through, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandleResult:
    """What came of one event."""

    record_id: int
    status: str
    reused: bool
    """The record was there before."""
    delivered: bool
    """This event made an attempt, whatever came of it."""
    fallback_used: bool
    attempt_count: int
    next_retry_at: datetime | None
    """When a failed record is tried again."""
    provider_error: str
    """The error code of the attempt this event made."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self) | {"next_retry_at": self.next_retry_at.isoformat() if self.next_retry_at else None}


class NotificationService:
    """The service: accept, deliver, retry, replay, cancel, send now.

    options: settings.NOTIFICATIONS by default. clock: for tests, else PostgreSQL's. providers: by channel.
    use_redis: False does without locks; the claim alone then guards. respect_circuit_breaker: the engine's.
    """

    def __init__(
        self,
        *,
        options: ServiceOptions | None = None,
        clock: Clock | None = None,
        providers: dict[str, Provider] | None = None,
        use_redis: bool = True,
        respect_circuit_breaker: bool = True,
    ) -> None:
        self.options = options or service_options()
        self.clock = clock
        self.providers = providers
        self.locks = Locks(gateway(), ttl=self.options.lock_ttl) if use_redis else None
        self.engine = Engine(
            options=self.options,
            clock=clock,
            locks=self.locks,
            providers=providers,
            respect_circuit_breaker=respect_circuit_breaker,
        )

    def accept(
        self,
        payloads: Iterable[object],
        *,
        channel: str = "feishu",
        deliver_at: datetime | None = None,
        expires_at: datetime | None = None,
    ) -> list[Accepted]:
        """Validate payloads and store them in the caller's transaction; one answer per payload, in their order.

        channel: one that has a provider. deliver_at: when they may first go out, with a time zone.
        expires_at: from when on they are skipped rather than sent, with a time zone.
        Raises InvalidNotification or DedupeConflict; then none of them is stored.
        """
        times = {"deliver_at": deliver_at, "expires_at": expires_at}
        if naive := [name for name, time in times.items() if time is not None and time.utcoffset() is None]:
            raise InvalidNotification([(name, _("must have a time zone")) for name in naive])
        if deliver_at and expires_at and expires_at <= deliver_at:
            raise InvalidNotification([("expires_at", _("must be later than deliver_at"))])
        if channel not in self.engine.providers:
            known = ", ".join(self.engine.providers)
            raise InvalidNotification([("channel", _("has no provider; known: %(known)s") % {"known": known})])
        limit = max_user_id()
        requests = [parse_payload(payload, max_user_id=limit, channel=channel) for payload in payloads]
        # One request is one statement; a savepoint would cost two more, and undo nothing.
        with transaction.atomic() if len(requests) > 1 else nullcontext():
            return insert_requests(requests, options=self.options, clock=self.clock, window=DeliveryWindow(**times))

    def handle_feishu_requested(self, payload: object, *, channel: str = "feishu") -> HandleResult:
        """Accept one event and deliver it at once if it is due; a duplicate sends nothing that was sent.

        channel: another than the event's own, for tests of a user's channel.
        Raises InvalidNotification or DedupeConflict; the task keeps such a payload as a RejectedRequest.
        """
        request = parse_payload(payload, max_user_id=max_user_id(), channel=channel)
        held = None
        if self.locks:
            held = self.locks.wait_for(lock_key(request.channel, request.dedupe_key), timeout=self.options.lock_wait)
        try:
            [accepted] = insert_requests([request], options=self.options, clock=self.clock)
            ended = None
            if held or not self.locks:  # else another process has the key: the row is stored, the sweep will send it
                ended = self.engine.deliver_one(accepted.record_id, caller_lock=held)
        finally:
            if held and self.locks:
                self.locks.release(held)
        record = NotificationRecord.objects.filter(pk=accepted.record_id).first()
        if record is None:  # the purge deleted it since, as old as it was: its key is free
            return self.handle_feishu_requested(payload, channel=channel)
        return HandleResult(
            record_id=record.pk,
            status=record.status,
            reused=accepted.reused,
            delivered=ended is not None and not ended.row.exhausted,
            fallback_used=record.fallback_used,
            attempt_count=record.attempt_count,
            next_retry_at=record.next_attempt_at if record.status == Status.FAILED else None,
            provider_error=ended.error_code if ended else "",
        )

    def reject(self, source: str, payload: object, error: InvalidNotification) -> RejectedRequest:
        """Keep a payload that was refused, with every reason, and say so in the log.

        source: which entrance it came by.
        """
        errors = [{"field": redact_text(name), "reason": str(reason)} for name, reason in error.errors]
        text = redact_text(_as_it_came(payload))
        rejected = RejectedRequest.objects.create(source=source, payload=text, errors=errors)
        fields = ", ".join(error["field"] for error in errors)
        logger.warning(
            "request rejected: %s",
            fields,
            extra={"event": "request.rejected", "rejected_id": rejected.pk, "source": source, "fields": fields},
        )
        return rejected

    def retry_feishu_notifications(self, now: datetime | None = None, limit: int = 0) -> RetryResult:
        """Deliver what is due on the Feishu channel, and return the counts.

        now: what counts as now, for all of the sweep; the service's clock by default.
        limit: records at most; `retry_scan_batch` if zero or less.
        """
        engine = Engine(
            options=self.options,
            clock=(lambda: now) if now else self.clock,
            locks=self.locks,
            providers=self.providers,
        )
        return engine.deliver_due(limit=limit if limit > 0 else self.options.retry_scan_batch, channels=["feishu"])

    def retry_due(self, now: datetime | None = None, limit: int = 0) -> int:
        """Deliver what is due on the Feishu channel, and return the number of sends."""
        return self.retry_feishu_notifications(now, limit).retried

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
        """Let records be sent again, with a fresh budget of attempts; their history stays. Returns how many.

        Only dead and skipped ones are taken; force: also sent and cancelled ones, which the reader then gets again.
        actor, reason: who and why, kept in the admin's log. progress: told after each batch.
        operation: the one this is a batch of; the records point to it.
        A record that changed meanwhile is left alone.
        """
        return self._operate(
            records.replayable(force=force),
            again=lambda batch: batch.replayable(force=force),
            change={
                "status": Status.PENDING,
                "attempt_count": 0,
                "max_attempts": self.options.max_attempts,
                "round": F("round") + 1,
                "next_attempt_at": self._now(),
                "hold_reason": "",
            }
            | ({"replay_operation": operation} if operation else {}),
            actor=actor,
            text=f"Replayed{' (forced)' if force else ''}: {reason}",
            progress=progress,
        )

    def cancel(
        self, records: NotificationQuerySet[NotificationRecord], actor: AbstractBaseUser | None, reason: str
    ) -> int:
        """Call off records that wait; those in a worker's hands or done are left alone. Returns how many."""
        return self._operate(
            records.cancellable(),
            again=lambda batch: batch.cancellable(),
            change={
                "status": Status.SKIPPED,
                "last_error_code": ErrorCode.CANCELLED,
                "last_error": "",
                "next_attempt_at": None,
                "hold_reason": "",
            },
            actor=actor,
            text=f"Cancelled: {reason}",
        )

    def send_now(
        self, records: NotificationQuerySet[NotificationRecord], actor: AbstractBaseUser | None, reason: str
    ) -> int:
        """Make records due that wait for a later time; each still goes out by the claim. Returns how many.

        The attempts made stay counted: one sent now is one of its budget.
        """
        return self._operate(
            records.deferred(),
            again=lambda batch: batch.deferred(),
            change={"next_attempt_at": self._now(), "hold_reason": ""},
            actor=actor,
            text=f"Sent now: {reason}",
        )

    def _operate(
        self,
        records: NotificationQuerySet[NotificationRecord],
        *,
        again: Callable[[NotificationQuerySet[NotificationRecord]], NotificationQuerySet[NotificationRecord]],
        change: dict[str, Any],
        actor: AbstractBaseUser | None,
        text: str,
        progress: Progress | None = None,
    ) -> int:
        """Change records in batches. `again` repeats the guard under the row's lock, where nothing can come between."""
        ids = list(records.order_by("pk").values_list("pk", flat=True))
        text, done = escape_invisible(text), 0
        for start in range(0, len(ids), OPERATION_BATCH):
            with transaction.atomic():
                batch = NotificationRecord.objects.filter(pk__in=ids[start : start + OPERATION_BATCH])
                locked = list(again(batch).select_for_update().order_by("pk").only("pk", "channel", "dedupe_key"))
                mine = NotificationRecord.objects.filter(pk__in=[record.pk for record in locked])
                done += mine.update(updated_at=self._now(), **change)
                if actor is not None:
                    add_admin_log(actor, locked, CHANGE, text)
            for record in locked:
                logger.info(
                    "record %d: %s",
                    record.pk,
                    text,
                    extra={"event": "record.operated", "record_id": record.pk, "actor_id": actor.pk if actor else None},
                )
            if progress:
                progress(min(start + OPERATION_BATCH, len(ids)), len(ids))
        return done

    def _now(self) -> Any:
        return self.clock() if self.clock else Now()


def _as_it_came(payload: object) -> str:
    """Return the payload as JSON with ASCII escapes, so that NUL and lone surrogates can be stored too."""
    try:
        return json.dumps(payload, default=str, skipkeys=True, ensure_ascii=True)
    except (ValueError, RecursionError):  # it holds itself, is nested beyond reason, or a number is too long to write
        return json.dumps("(not representable as JSON)")
