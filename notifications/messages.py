"""General messages: store one for each recipient and channel, change what still waits, and say what became of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from notifications.clock import Clock, current_time, database_now
from notifications.conf import ServiceOptions
from notifications.content.text import trim
from notifications.ingest.insert import DeliveryWindow, insert_requests
from notifications.ingest.message import AddressedRequest, address_message, parse_message
from notifications.ingest.validation import InvalidNotification, time_problem
from notifications.lifecycle.events import write_events
from notifications.models import NotificationRecord
from notifications.states import CLAIMABLE, HELD_BY_ENDPOINT, ErrorCode, Status

logger = logging.getLogger("notifications.service")

MAX_CHANGES = 20
"""Changes of a message that its record remembers."""
CHANGES = "changes"
"""Key of the changes in `content`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notified:
    """One message to one recipient on one channel."""

    key: str
    """The caller's key, or the one that was made."""
    record_id: int
    recipient: int
    """Index of the recipient in the call."""
    channel: str
    status: str
    """Status of the record, a value of `Status`."""
    reused: bool
    """Whether the record existed before. Then nothing new is sent, unless it was changed."""
    changed: bool = False
    """Whether `replace` has changed the record, or has begun a new round of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStatus:
    """What became of a message to one recipient on one channel."""

    record_id: int
    channel: str
    user_id: Any
    """Primary key of the user; None for an endpoint that belongs to nobody."""
    endpoint_id: int | None
    """The endpoint that the record names; None for the user's endpoint without a label."""
    status: str
    """A value of `Status`."""
    error_code: str
    attempt_count: int
    next_attempt_at: datetime | None
    sent_at: datetime | None


def request_message(
    recipients: Any,
    arguments: Mapping[str, Any],
    *,
    channels: Iterable[str] | None,
    replace: bool,
    options: ServiceOptions,
    clock: Clock | None = None,
) -> list[Notified]:
    """Store a message in the caller's transaction: all of its records, or none.

    Args:
        recipients: As for `notifications.api.notify`.
        arguments: Its other arguments by name, without `channels` and `replace`.
        channels: Names of the channels; None for those of each recipient.
        replace: Change records of the same key that still wait, and begin a new round of cancelled and dead ones.
        options: The options of the project.
        clock: Clock of a test; None for PostgreSQL's clock.

    Raises:
        InvalidNotification: An argument is wrong.
        DedupeConflict: The key belongs to an event of docs/events.md.
    """
    message = parse_message(arguments, options)
    addressed = address_message(message, recipients, channels, options)
    # One record is one statement. A savepoint would cost two more statements and undo nothing.
    with transaction.atomic() if replace or len(addressed) > 1 else nullcontext():
        window = DeliveryWindow(deliver_at=message.deliver_at, expires_at=message.expires_at)
        accepted = insert_requests([item.request for item in addressed], options=options, clock=clock, window=window)
        known = {result.record_id: item for result, item in zip(accepted, addressed, strict=True) if result.reused}
        changed = _replace(known, window, options, clock) if replace and known else {}
    return [
        Notified(
            key=message.key,
            record_id=result.record_id,
            recipient=item.target.recipient,
            channel=item.target.channel,
            status=changed.get(result.record_id, result.status),
            reused=result.reused,
            changed=result.record_id in changed,
        )
        for result, item in zip(accepted, addressed, strict=True)
    ]


def _replace(
    known: Mapping[int, AddressedRequest], window: DeliveryWindow, options: ServiceOptions, clock: Clock | None
) -> dict[int, str]:
    """Give records what was asked for now, unless they are being sent or were sent. Return their new status by id."""
    changed: dict[int, str] = {}
    signals: list[tuple[int, str]] = []
    for record in _lock(known):
        request = known[record.pk].request
        begins_anew = record.status == Status.DEAD or (
            record.status == Status.SKIPPED and record.last_error_code in (ErrorCode.CANCELLED, ErrorCode.EXPIRED)
        )
        if not begins_anew and record.status not in CLAIMABLE:
            continue
        was = {"title": record.title, "text": record.summary_text, "link": record.target_url}
        _note_change(record, "replaced", was, content=request.content or {})
        record.title, record.summary_text, record.target_url = request.title, request.summary_text, request.target_url
        # Not its order key: another record may wait for this one.
        record.kind, record.priority = request.kind, request.priority
        record.expires_at = window.expires_at
        if begins_anew:
            record.status, record.attempt_count, record.max_attempts = Status.PENDING, 0, options.max_attempts
            record.round += 1
            signals.append((record.pk, "replayed"))
        elif window.deliver_at and record.hold_reason in HELD_BY_ENDPOINT:
            signals.append((record.pk, "released"))
        if begins_anew or window.deliver_at:
            record.next_attempt_at, record.hold_reason = window.deliver_at or _now(clock), ""
        record.updated_at = _now(clock)
        record.save(update_fields=[*_REPLACED, "updated_at"])
        changed[record.pk] = str(record.status)
        _log_change(record.pk, "replaced")
    write_events(signals)
    return changed


_REPLACED = (
    *("title", "summary_text", "target_url", "kind", "priority", "content", "expires_at", "status"),
    *("attempt_count", "max_attempts", "round", "next_attempt_at", "hold_reason"),
)


def reschedule_message(
    key: str, deliver_at: datetime, *, expires_at: datetime | None = None, clock: Clock | None = None
) -> int:
    """Change when the waiting records of a message are sent. Return how many were changed.

    Args:
        key: The caller's key.
        deliver_at: Time of the first possible send, with a time zone.
        expires_at: Time from which they are skipped instead; None to leave it as it is.
        clock: Clock of a test; None for PostgreSQL's clock.

    Raises:
        InvalidNotification: A time is wrong, or not later than the other.
    """
    times = {"deliver_at": deliver_at, "expires_at": expires_at}
    if errors := [(name, problem) for name, time in times.items() if time and (problem := time_problem(time))]:
        raise InvalidNotification(errors)
    changed = 0
    released: list[tuple[int, str]] = []
    with transaction.atomic():
        for record in _lock_by_key(key):
            ends = expires_at or record.expires_at
            if ends and ends <= deliver_at:
                raise InvalidNotification([("expires_at", _("must be later than deliver_at"))])
            was = {"deliver_at": record.next_attempt_at.isoformat() if record.next_attempt_at else None}
            if record.hold_reason in HELD_BY_ENDPOINT:
                released.append((record.pk, "released"))
            _note_change(record, "rescheduled", was, content=record.content or {})
            record.next_attempt_at, record.expires_at, record.hold_reason = deliver_at, ends, ""
            record.updated_at = _now(clock)
            record.save(update_fields=["next_attempt_at", "expires_at", "hold_reason", "content", "updated_at"])
            _log_change(record.pk, "rescheduled")
            changed += 1
        write_events(released)
    return changed


def statuses_of(key: str) -> list[MessageStatus]:
    """Return what became of a message, by record id.

    Args:
        key: The caller's key.
    """
    columns = ("channel", "user_id", "endpoint_id", "status", "attempt_count", "next_attempt_at", "sent_at")
    rows = NotificationRecord.objects.filter(request_key=trim(key)).exclude(request_key="").order_by("pk")
    return [MessageStatus(**row) for row in rows.values(*columns, record_id=F("pk"), error_code=F("last_error_code"))]


def _lock(ids: Iterable[int]) -> Sequence[NotificationRecord]:
    return list(NotificationRecord.objects.filter(pk__in=list(ids)).select_for_update().order_by("pk"))


def _lock_by_key(key: str) -> Sequence[NotificationRecord]:
    waiting = NotificationRecord.objects.filter(request_key=trim(key), status__in=CLAIMABLE).exclude(request_key="")
    return list(waiting.select_for_update().order_by("pk"))


def _note_change(record: NotificationRecord, what: str, was: dict[str, Any], *, content: Mapping[str, Any]) -> None:
    """Write the change into the record, with what it had before."""
    changes = [*(record.content or {}).get(CHANGES, ()), {"at": database_now().isoformat(), "what": what, "was": was}]
    record.content = {**content, CHANGES: changes[-MAX_CHANGES:]}


def _log_change(record_id: int, what: str) -> None:
    extra = {"event": f"message.{what}", "record_id": record_id}
    logger.info("notification %d: %s by its producer", record_id, what, extra=extra)


def _now(clock: Clock | None) -> Any:
    return current_time(clock)
