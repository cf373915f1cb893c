"""Inserts requests in the caller's transaction: one row per channel and dedupe key."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection
from django.utils.translation import gettext_lazy as _

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.content.rendering import MessageTemplate, find_replaced_texts, normalize_message_template
from notifications.ingest.payload import NotificationRequest
from notifications.ingest.validation import DedupeConflict
from notifications.models import NotificationRecord
from notifications.sql import load_sql
from notifications.states import Status, TextReplaced
from notifications.telemetry.tracing import current_trace_id
from notifications.user_keys import UserKey, user_key_field

logger = logging.getLogger("notifications.service")


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
    replaced: tuple[str, ...] = ()
    """The fields whose text is not sent as it was given: it contains an external link, is invisible, or is too long.
    The record keeps the given text. Empty for a duplicate."""
    status: str = Status.PENDING.value
    """The status of the record; that of a duplicate when it was found."""


class _Row(NamedTuple):
    """A record of a request."""

    record_id: int
    user_id: UserKey | None
    request_key: str
    status: str = Status.PENDING.value
    replaced_texts: str | None = None
    """JSON; only of a new record."""


_Key = tuple[str, str]
"""Channel and dedupe key."""
_COLUMNS = (
    *("channel", "user_id", "trigger_id", "preview_id", "trigger_type", "target_type", "target_id", "dedupe_key"),
    *("target_url", "trace_id", "priority", "endpoint_id", "request_key", "order_key", "kind", "title"),
)
MAX_LOGGED_IDS = 20
"""Records of duplicates that one log line names."""
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
        requests: Requests that passed every check. A user's key may also be its text; the user need not exist.
        options: For the number of attempts and the length of the summary.
        clock: The current time in tests; PostgreSQL's clock by default.
        window: When the messages may be sent.

    Returns:
        One result per request, in the same order.

    Raises:
        DedupeConflict: A key belongs to another user. The caller's transaction decides what is rolled back.
        ValidationError: A user's key is none of the user model.
    """
    requests = [_with_model_key(request) for request in requests]
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


def _with_model_key(request: NotificationRequest) -> NotificationRequest:
    """Return the request with the user's key as the model has it, so that it equals that of a stored row."""
    key = user_key_field().to_python(request.user_id)
    return request if key == request.user_id else replace(request, user_id=key)


def _insert_batch(
    requests: Sequence[NotificationRequest], options: ServiceOptions, clock: Clock | None, window: DeliveryWindow
) -> list[Accepted]:
    new: dict[_Key, _Row] = {}
    known: dict[_Key, _Row] = {}
    # One pass is enough, unless the purge deletes an old record between the conflicting INSERT and the SELECT.
    while missing := [request for request in requests if _key(request) not in known]:
        new |= _insert(missing, options, clock, window)
        known |= new | _find_existing([request for request in missing if _key(request) not in new])
    results = [_accepted(request, known[_key(request)], new) for request in requests]
    if duplicates := [result.record_id for result in results if result.reused]:
        logger.info(
            "%d of %d requests are duplicates and change nothing",
            *(len(duplicates), len(results)),
            extra={"event": "request.duplicate", "count": len(duplicates), "record_ids": duplicates[:MAX_LOGGED_IDS]},
        )
    return results


def _insert(
    requests: Sequence[NotificationRequest], options: ServiceOptions, clock: Clock | None, window: DeliveryWindow
) -> dict[_Key, _Row]:
    """Insert the requests whose key is new; return their rows."""
    texts = [
        MessageTemplate(request.summary_text, "", False)
        if request.content is not None
        else normalize_message_template(request.summary_text, request.fallback_text, options.summary_max_runes)
        for request in requests
    ]
    parameters: dict[str, Any] = {name: [getattr(request, name) for request in requests] for name in _COLUMNS}
    user_key = user_key_field()
    parameters["user_id"] = [user_key.get_db_prep_value(key, connection) for key in parameters["user_id"]]
    parameters |= {name: [getattr(text, name) for text in texts] for name in texts[0]._fields}
    replaced = [
        find_replaced_texts(request.summary_text, request.fallback_text, text) if request.content is None else {}
        for request, text in zip(requests, texts, strict=True)
    ]
    parameters["replaced_texts"] = [json.dumps(texts, ensure_ascii=False) if texts else None for texts in replaced]
    parameters["content"] = [
        None if request.content is None else json.dumps(request.content, ensure_ascii=False) for request in requests
    ]
    parameters |= {
        "now": clock() if clock else None,
        "deliver_at": window.deliver_at,
        "expires_at": window.expires_at,
        "max_attempts": options.max_attempts,
    }
    with connection.cursor() as cursor:
        cursor.execute(load_sql("notifications.ingest", "insert_requests"), parameters)
        rows = {
            (channel, key): _Row(record, owner, request_key, replaced_texts=texts)
            for record, channel, key, owner, request_key, texts in cursor.fetchall()
        }
    for row in rows.values():
        if row.replaced_texts:
            _log_replaced(row)
    return rows


def _log_replaced(row: _Row) -> None:
    """Write which texts are not sent as they were given. The texts themselves are personal, so they are not logged."""
    reasons = {field: replaced["reason"] for field, replaced in json.loads(row.replaced_texts or "{}").items()}
    logger.log(
        logging.INFO if set(reasons.values()) == {TextReplaced.TOO_LONG} else logging.WARNING,
        "notification %d is not sent with the text that was given: %s",
        row.record_id,
        ", ".join(f"{field} ({reason})" for field, reason in reasons.items()),
        extra={"event": "request.text_replaced", "record_id": row.record_id, "reasons": reasons},
    )


def _find_existing(requests: Sequence[NotificationRequest]) -> dict[_Key, _Row]:
    """Return the rows of existing keys. They are committed, because the INSERT waited for them."""
    if not requests:
        return {}
    keys = {request.dedupe_key for request in requests}
    columns = ("channel", "dedupe_key", "id", "user_id", "request_key", "status")
    rows = NotificationRecord.objects.filter(dedupe_key__in=keys).values_list(*columns)
    return {(channel, key): _Row(*values) for channel, key, *values in rows}


def _accepted(request: NotificationRequest, row: _Row, new: dict[_Key, _Row]) -> Accepted:
    if row.user_id != request.user_id:
        raise DedupeConflict([("dedupe_key", _("already belongs to a notification of another user"))])
    if row.request_key != request.request_key:  # an event has the key that this message would have, or the other way
        raise DedupeConflict([("key", _("already belongs to another notification of this recipient"))])
    # Removed at its first use: where one call has the same key twice, only the first is new.
    if new.pop(_key(request), None) is None:
        return Accepted(record_id=row.record_id, reused=True, status=row.status)
    return Accepted(record_id=row.record_id, reused=False, replaced=tuple(json.loads(row.replaced_texts or "{}")))


def _key(request: NotificationRequest) -> _Key:
    return request.channel, request.dedupe_key
