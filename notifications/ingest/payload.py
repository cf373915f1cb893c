"""The payload of a request: what is accepted, and which field is wrong and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NotRequired, TypedDict

from notifications.ingest.validation import MAX_INT64, Check


class NotificationPayload(TypedDict):
    """The fields of a request, for type checkers; docs/events.md has the rules, which are checked whatever they say."""

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
    notification_id: NotRequired[int]
    event_version: NotRequired[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationRequest:
    """A payload that passed every rule."""

    user_id: int
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
    channel: str = "feishu"


IDENTIFIER_LENGTHS = {
    "preview_id": 191,
    "dedupe_key": 191,
    "target_url": 1024,
    "trigger_id": 191,
    "trigger_type": 64,
    "target_type": 64,
    "trace_id": 191,
}
"""Longest accepted length of each, after trimming; the columns are as wide."""

TEXT_LENGTHS = {"summary_text": 10_000, "fallback_text": 10_000}

REQUIRED_IDENTIFIERS = ("preview_id", "dedupe_key", "target_url")

FIELDS = {
    "event_version",
    "notification_id",
    "user_id",
    "target_id",
    "requested_at",
    *IDENTIFIER_LENGTHS,
    *TEXT_LENGTHS,
}


def parse_payload(payload: object, *, max_user_id: int = MAX_INT64, channel: str = "feishu") -> NotificationRequest:
    """Return the request in `payload`, a mapping as described in docs/events.md.

    max_user_id: the largest key the user table can hold. channel: which provider takes the message.
    Raises InvalidNotification listing every field that is wrong and why. Blank rules and their order are the
    Go service's; lengths, types and characters are ours.
    """
    check = Check(payload, FIELDS)
    user_id = check.positive_integer("user_id", max_user_id)
    strings = {
        name: check.identifier(name, limit, required=name in REQUIRED_IDENTIFIERS)
        for name, limit in IDENTIFIER_LENGTHS.items()
    }
    check.site_path(strings["target_url"])
    check.time("requested_at")
    texts = {name: check.text(name, limit) for name, limit in TEXT_LENGTHS.items()}
    target_id = check.integer("target_id")
    check.integer("notification_id")
    check.event_version()
    check.refuse_unknown_fields()
    check.raise_if_refused()
    return NotificationRequest(user_id=user_id, target_id=target_id or 0, channel=channel, **strings, **texts)
