"""The service: accept requests, deliver, retry, and the operations of operators on records.

The names are those of the Go service that this one succeeds.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils.translation import gettext_lazy as _

from notifications.broker.redis_client import gateway
from notifications.clock import Clock
from notifications.conf import ServiceOptions, service_options
from notifications.delivery.engine import Engine, RetryResult
from notifications.delivery.locks import Locks, lock_key, lock_ttl
from notifications.delivery.settlement import Settlement
from notifications.ingest.insert import Accepted, DeliveryWindow, insert_requests
from notifications.ingest.payload import NotificationRequest, parse_payload
from notifications.ingest.validation import InvalidNotification, time_problem
from notifications.models import NotificationRecord, RejectedRequest
from notifications.providers.base import Provider
from notifications.record_operations import Progress, RecordOperations
from notifications.security.log_redaction import redact_text
from notifications.states import Status
from notifications.user_keys import max_user_id

logger = logging.getLogger("notifications.service")
MAX_REJECTED_CHARACTERS = 256 * 1024
"""Characters of a rejected payload that are kept: twice what a valid one may have."""
__all__ = ["HandleResult", "NotificationService", "Progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandleResult:
    """The result of one event."""

    record_id: int
    status: str
    reused: bool
    """Whether the record existed before."""
    delivered: bool
    """Whether this event made an attempt, successful or not."""
    fallback_used: bool
    attempt_count: int
    next_retry_at: datetime | None
    """The time of the next attempt; None unless the status is failed."""
    provider_error: str
    """The error code of the attempt that this event made; empty if it made none or succeeded."""

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self) | {"next_retry_at": self.next_retry_at.isoformat() if self.next_retry_at else None}


class NotificationService(RecordOperations):
    """Accepts requests, delivers them, and runs the operations replay, cancel and send now.

    Args:
        options: Options of the service; those of settings.NOTIFICATIONS by default.
        clock: Returns the current time in tests. By default PostgreSQL's clock decides.
        providers: Providers by channel; the configured ones by default.
        use_redis: False to take no Redis locks. The claim alone then prevents a second send.
    """

    def __init__(
        self,
        *,
        options: ServiceOptions | None = None,
        clock: Clock | None = None,
        providers: dict[str, Provider] | None = None,
        use_redis: bool = True,
    ) -> None:
        self.options = options or service_options()
        self.clock = clock
        self.providers = providers
        self.locks = Locks(gateway(), ttl=lock_ttl(self.options)) if use_redis else None
        self.engine = Engine(
            options=self.options,
            clock=clock,
            locks=self.locks,
            providers=providers,
        )

    def accept(
        self,
        payloads: Iterable[object],
        *,
        channel: str = "feishu",
        deliver_at: datetime | None = None,
        expires_at: datetime | None = None,
    ) -> list[Accepted]:
        """Validate payloads and store them in the caller's transaction.

        Args:
            payloads: Mappings with the fields of docs/events.md.
            channel: A channel that has a provider.
            deliver_at: Time of the first possible send, with a time zone; at once by default.
            expires_at: Time from which the records are skipped instead of sent, with a time zone; never by default.

        Returns:
            One result per payload, in the same order.

        Raises:
            InvalidNotification: A payload, the channel or a time is not valid. No payload is stored.
            DedupeConflict: A dedupe key belongs to a notification of another user. No payload is stored.
        """
        times = {"deliver_at": deliver_at, "expires_at": expires_at}
        if problems := [(name, problem) for name, time in times.items() if time and (problem := time_problem(time))]:
            raise InvalidNotification(problems)
        if deliver_at and expires_at and expires_at <= deliver_at:
            raise InvalidNotification([("expires_at", _("must be later than deliver_at"))])
        if channel not in self.engine.providers:
            known = ", ".join(self.engine.providers)
            raise InvalidNotification([("channel", _("has no provider; known: %(known)s") % {"known": known})])
        limit = max_user_id()
        requests = [parse_payload(payload, max_user_id=limit, channel=channel) for payload in payloads]
        # One request is one statement. A savepoint would cost two more statements and undo nothing.
        with transaction.atomic() if len(requests) > 1 else nullcontext():
            return insert_requests(requests, options=self.options, clock=self.clock, window=DeliveryWindow(**times))

    def handle_feishu_requested(self, payload: object, *, channel: str = "feishu") -> HandleResult:
        """Accept one event and deliver it as `deliver_now` does. The Celery task of this name only stores the event.

        Args:
            payload: A mapping with the fields of docs/events.md.
            channel: The channel of the message.

        Returns:
            The record after the attempt, and what this event did.

        Raises:
            InvalidNotification: The payload is not valid.
            DedupeConflict: The dedupe key belongs to a notification of another user.
        """
        return self.deliver_now(parse_payload(payload, max_user_id=max_user_id(), channel=channel))

    def deliver_now(self, request: NotificationRequest) -> HandleResult:
        """Store a request and deliver it in this thread if it is due. A duplicate sends nothing a second time.

        For callers that need the outcome, such as a test message.

        The lock of the request's key is held from the insert to the settled result, as in the Go service. If another
        process holds the lock for longer than LOCK_WAIT, the record is stored and the sweep delivers it.

        Args:
            request: A request that passed every check.

        Returns:
            The record after the attempt, and what this request did.

        Raises:
            DedupeConflict: The dedupe key belongs to a notification of another user.
        """
        lock = None
        if self.locks:
            lock = self.locks.wait_for(lock_key(request.channel, request.dedupe_key), timeout=self.options.lock_wait)
        try:
            [accepted] = insert_requests([request], options=self.options, clock=self.clock)
            settlement = None
            if lock or not self.locks:  # otherwise another process holds the key, and the sweep sends the record
                settlement = self.engine.deliver_one(accepted.record_id, caller_lock=lock)
        finally:
            if lock and self.locks:
                self.locks.release(lock)
        result = find_result(accepted, settlement)
        if result is None:  # a purge deleted the old record meanwhile, so its key is free again
            return self.deliver_now(request)
        return result

    def reject(self, source: str, payload: object, error: InvalidNotification) -> RejectedRequest:
        """Store a payload that was rejected, with every reason, and log it. Secrets in it are redacted.

        Args:
            source: Where the payload came from, such as the name of the task.
            payload: The payload as it was received. It need not be JSON.
            error: The exception that lists every wrong field.

        Returns:
            The stored row.
        """
        errors = [{"field": redact_text(name), "reason": str(reason)} for name, reason in error.errors]
        text = _bound_payload(_payload_as_json(payload))
        rejected = RejectedRequest.objects.create(source=source, payload=text, errors=errors)
        fields = ", ".join(error["field"] for error in errors)
        logger.warning(
            "request rejected: %s",
            fields,
            extra={"event": "request.rejected", "rejected_id": rejected.pk, "source": source, "fields": fields},
        )
        return rejected

    def retry_feishu_notifications(self, now: datetime | None = None, limit: int = 0) -> RetryResult:
        """Deliver the due records of the Feishu channel.

        Args:
            now: The current time for the whole sweep; the service's clock by default.
            limit: Largest number of records; RETRY_SCAN_BATCH if zero or less.

        Returns:
            The counters of the sweep.
        """
        engine = Engine(
            options=self.options,
            clock=(lambda: now) if now else self.clock,
            locks=self.locks,
            providers=self.providers,
        )
        return engine.deliver_due(limit=limit if limit > 0 else self.options.retry_scan_batch, channels=["feishu"])

    def retry_due(self, now: datetime | None = None, limit: int = 0) -> int:
        """Call `retry_feishu_notifications` and return only the number of attempts."""
        return self.retry_feishu_notifications(now, limit).retried


def find_result(accepted: Accepted, settlement: Settlement | None = None) -> HandleResult | None:
    """Return what the record of an accepted event holds now; None if a purge has deleted it meanwhile.

    Args:
        accepted: The result of the insert.
        settlement: The attempt that this event made; None if it made none.
    """
    record = NotificationRecord.objects.filter(pk=accepted.record_id).first()
    if record is None:
        return None
    return HandleResult(
        record_id=record.pk,
        status=record.status,
        reused=accepted.reused,
        delivered=settlement is not None and not settlement.row.exhausted,
        fallback_used=record.fallback_used,
        attempt_count=record.attempt_count,
        next_retry_at=record.next_attempt_at if record.status == Status.FAILED else None,
        provider_error=settlement.error_code if settlement else "",
    )


def _bound_payload(text: str) -> str:
    """Return a payload without secrets; of a long one the beginning, its size and its hash, as JSON."""
    if len(text) <= MAX_REJECTED_CHARACTERS:
        return redact_text(text)
    return json.dumps(
        {
            "beginning": redact_text(text[:MAX_REJECTED_CHARACTERS]),
            "size": len(text),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
    )


def _payload_as_json(payload: object) -> str:
    """Return the payload as JSON with ASCII escapes, because PostgreSQL stores neither NUL nor lone surrogates."""
    try:
        return json.dumps(payload, default=str, skipkeys=True, ensure_ascii=True)
    except (ValueError, RecursionError):  # a circular reference, very deep nesting, or a number that is too long
        return json.dumps("(not representable as JSON)")
