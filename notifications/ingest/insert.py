"""Inserts requests in the caller's transaction: one row per channel and dedupe key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db import connection
from django.utils.translation import gettext_lazy as _

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.content.rendering import normalize_message_template
from notifications.ingest.payload import NotificationRequest
from notifications.ingest.validation import DedupeConflict
from notifications.models import NotificationRecord
from notifications.sql import load_sql
from notifications.telemetry.tracing import current_trace_id


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryWindow:
    """When a message may be sent."""

    deliver_at: datetime | None = None
    """It is not sent before this time; None: at once."""
    expires_at: datetime | None = None
    """From this time on the record is skipped instead; None: never."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Result of one request."""

    record_id: int
    reused: bool
    """Whether the record existed before. A duplicate request is no error and sends nothing twice."""


_INSERT = load_sql("notifications.ingest", "insert_requests")
_COLUMNS = (
    *("channel", "user_id", "trigger_id", "preview_id", "trigger_type", "target_type", "target_id", "dedupe_key"),
    *("target_url", "trace_id"),
)
INSERT_BATCH_ROWS = 1000
"""Rows per INSERT: many, so that few round trips are needed, but few enough to end within a statement timeout."""


def insert_requests(
    requests: Sequence[NotificationRequest],
    *,
    options: ServiceOptions,
    clock: Clock | None = None,
    window: DeliveryWindow = DeliveryWindow(),
) -> list[Accepted]:
    """Insert new requests and find the records of duplicates.

    Args:
        requests: Requests that passed every check.
        options: For the number of attempts and the length of the summary.
        clock: The current time in tests; PostgreSQL's clock by default.
        window: When the messages may be sent.

    Returns:
        One result per request, in the same order.

    Raises:
        DedupeConflict: A key belongs to another user. The caller's transaction decides what is rolled back.
    """
    if trace_id := current_trace_id():
        requests = [request if request.trace_id else replace(request, trace_id=trace_id) for request in requests]
    # One order over the whole call, the same in every process, so that two bulk requests cannot deadlock.
    positions = sorted(range(len(requests)), key=lambda position: (requests[position].dedupe_key, position))
    accepted: dict[int, Accepted] = {}
    for start in range(0, len(positions), INSERT_BATCH_ROWS):
        batch = positions[start : start + INSERT_BATCH_ROWS]
        results = _insert_batch([requests[position] for position in batch], options, clock, window)
        accepted |= dict(zip(batch, results, strict=True))
    return [accepted[position] for position in range(len(requests))]


def _insert_batch(
    requests: Sequence[NotificationRequest], options: ServiceOptions, clock: Clock | None, window: DeliveryWindow
) -> list[Accepted]:
    new: dict[tuple[str, str], tuple[int, int]] = {}
    known: dict[tuple[str, str], tuple[int, int]] = {}
    # One pass is enough, unless the purge deletes an old record between the conflicting INSERT and the SELECT.
    while missing := [request for request in requests if _key(request) not in known]:
        new |= _insert(missing, options, clock, window)
        known |= new | _find_existing([request for request in missing if _key(request) not in new])
    return [_accepted(request, known[_key(request)], new) for request in requests]


def _insert(
    requests: Sequence[NotificationRequest], options: ServiceOptions, clock: Clock | None, window: DeliveryWindow
) -> dict[tuple[str, str], tuple[int, int]]:
    """Insert the requests whose key is new; return (record id, user id) by channel and key."""
    texts = [
        normalize_message_template(request.summary_text, request.fallback_text, options.summary_max_runes)
        for request in requests
    ]
    parameters: dict[str, Any] = {name: [getattr(request, name) for request in requests] for name in _COLUMNS}
    parameters |= {name: [getattr(text, name) for text in texts] for name in texts[0]._fields}
    parameters |= {
        "now": clock() if clock else None,
        "deliver_at": window.deliver_at,
        "expires_at": window.expires_at,
        "max_attempts": options.max_attempts,
    }
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, parameters)
        return {(channel, key): (record_id, owner) for record_id, channel, key, owner in cursor.fetchall()}


def _find_existing(requests: Sequence[NotificationRequest]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (record id, user id) of existing keys. Their rows are committed, because the INSERT waited for them."""
    if not requests:
        return {}
    keys = {request.dedupe_key for request in requests}
    rows = NotificationRecord.objects.filter(dedupe_key__in=keys).values_list("channel", "dedupe_key", "id", "user_id")
    return {(channel, key): (record_id, owner) for channel, key, record_id, owner in rows}


def _accepted(
    request: NotificationRequest, record: tuple[int, int], new: dict[tuple[str, str], tuple[int, int]]
) -> Accepted:
    record_id, owner = record
    if owner != request.user_id:
        raise DedupeConflict([("dedupe_key", _("already belongs to a notification of another user"))])
    # Removed at its first use: where one call has the same key twice, only the first is new.
    return Accepted(record_id=record_id, reused=new.pop(_key(request), None) is None)


def _key(request: NotificationRequest) -> tuple[str, str]:
    return request.channel, request.dedupe_key
