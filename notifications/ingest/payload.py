"""The payload of a request and its rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NotRequired, TypedDict

from notifications.ingest.validation import MAX_INT64, Check
from notifications.states import Priority
from notifications.user_keys import UserKey


class NotificationPayload(TypedDict):
    """The fields of a request, for type checkers. docs/events.md has their rules; `parse_payload` checks them."""

    user_id: int
    preview_id: str
    dedupe_key: str
    target_url: str
    requested_at: datetime | str
    trigger_id: NotRequired[str]
    trigger_type: NotRequired[str]
    target_type: NotRequired[str]
    target_id: NotRequired[int]
    summary_text: NotRequired[str]
    fallback_text: NotRequired[str]
    trace_id: NotRequired[str]
    priority: NotRequired[int]
    notification_id: NotRequired[int]
    event_version: NotRequired[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRequest:
    """A request whose payload passed every check: an event of docs/events.md, or a message of `notify`."""

    user_id: UserKey | None
    """None for an endpoint that belongs to nobody."""
    preview_id: str
    dedupe_key: str
    target_url: str
    trigger_id: str = ""
    trigger_type: str = ""
    target_type: str = ""
    target_id: int = 0
    summary_text: str = ""
    fallback_text: str = ""
    trace_id: str = ""
    priority: int = Priority.NORMAL.value
    channel: str = "feishu"
    endpoint_id: int | None = None
    request_key: str = ""
    order_key: str = ""
    """Records of the channel with the same key are sent one after the other; empty: not ordered."""
    kind: str = ""
    title: str = ""
    content: dict[str, Any] | None = None
    """JSON values of a `MessageContent`; None for an event."""


IDENTIFIER_LENGTHS = {
    "preview_id": 191,
    "dedupe_key": 191,
    "target_url": 1024,
    "trigger_id": 191,
    "trigger_type": 64,
    "target_type": 64,
    "trace_id": 191,
}
"""Longest accepted value of each, in characters after trimming. The columns have the same width."""

TEXT_LENGTHS = {"summary_text": 10_000, "fallback_text": 10_000}
"""Longest accepted value of each, in characters after trimming."""

REQUIRED_IDENTIFIERS = ("preview_id", "dedupe_key", "target_url")

FIELDS = {
    "event_version",
    "notification_id",
    "user_id",
    "target_id",
    "requested_at",
    "priority",
    *IDENTIFIER_LENGTHS,
    *TEXT_LENGTHS,
}


def parse_payload(
    payload: object, *, max_user_id: int | None = MAX_INT64, channel: str = "feishu"
) -> NotificationRequest:
    """Check a payload and return its request.

    Which fields are required and the order of the errors come from the Go service; lengths, types and characters are
    rules of this app.

    Args:
        payload: A mapping with the fields of a request; docs/events.md lists them.
        max_user_id: The largest key that the user table can hold; None if its keys are no integers, which refuses every
            payload.
        channel: The channel whose provider sends the message.

    Returns:
        The request, its strings trimmed.

    Raises:
        InvalidNotification: At least one field is wrong; `errors` lists each with its reason.
    """
    check = Check(payload, FIELDS)
    user_id = check.user_id(max_user_id)
    strings: dict[str, Any] = {
        name: check.identifier(name, limit, required=name in REQUIRED_IDENTIFIERS)
        for name, limit in IDENTIFIER_LENGTHS.items()
    }
    check.site_path(strings["target_url"])
    check.time("requested_at")
    texts: dict[str, Any] = {name: check.text(name, limit) for name, limit in TEXT_LENGTHS.items()}
    target_id = check.integer("target_id")
    priority = check.integer_between("priority", min(Priority.values), max(Priority.values))
    check.integer("notification_id")
    check.event_version()
    check.refuse_unknown_fields()
    check.raise_if_refused()
    return NotificationRequest(
        user_id=user_id,
        target_id=target_id or 0,
        priority=Priority.NORMAL.value if priority is None else priority,
        channel=channel,
        **strings,
        **texts,
    )
