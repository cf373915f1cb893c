"""The event `notification.requested`: the arguments of `notify` as JSON values, for other Celery apps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext_lazy as _

from notifications.content.message import OPEN_ID, USER_ID, Mention
from notifications.ingest.recipients import Recipient
from notifications.ingest.validation import Check, Reason

MESSAGE_FIELDS = {
    *("event_version", "recipients", "text", "title", "url", "action", "key", "channels", "kind", "context", "data"),
    *("language", "mentions", "priority", "deliver_at", "expires_at", "order_key", "replace"),
}
RECIPIENT_FIELDS = {"user", "label", "address", "channel", "context"}


def read_message_event(payload: object) -> dict[str, Any]:
    """Return the arguments of `notify` that an event holds.

    Args:
        payload: A mapping with the fields of docs/messages.md.

    Raises:
        InvalidNotification: A field is missing, unknown or of a wrong form. What `notify` checks is not checked here.
    """
    check = Check(payload, MESSAGE_FIELDS)
    # A broker may deliver an event twice. Without a key of the producer the second one would be another message.
    check.line("key", 191)
    check.event_version()
    check.refuse_unknown_fields()
    values = {name: value for name, value in check.payload.items() if name != "event_version" and value is not None}
    errors: list[tuple[str, Reason]] = []
    if "recipients" not in values:
        errors.append(("recipients", _("is required")))
    else:
        values["recipients"] = _read_recipients(values["recipients"], errors)
    if "mentions" in values:
        values["mentions"] = _read_mentions(values["mentions"], errors)
    for name in ("deliver_at", "expires_at"):
        if name in values:
            values[name] = check.time(name)
    if not isinstance(values.get("replace", False), bool):
        errors.append(("replace", _("must be true or false")))
    channels = values.get("channels")
    if channels is not None and not (isinstance(channels, list) and all(isinstance(name, str) for name in channels)):
        errors.append(("channels", _("must be a list of names")))
    for name, reason in errors:
        check.refuse(name, reason)
    check.raise_if_refused()
    return values


def _read_recipients(value: Any, errors: list[tuple[str, Reason]]) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    recipients: list[Any] = []
    for index, item in enumerate(items):
        if isinstance(item, (str, int)) and not isinstance(item, bool):
            recipients.append(item)
        elif isinstance(item, Mapping) and not item.keys() - RECIPIENT_FIELDS:
            texts = {name: item[name] for name in ("label", "address", "channel") if name in item}
            if not all(isinstance(text, str) for text in texts.values()):
                errors.append((f"recipients[{index}]", _("label, address and channel must be strings")))
                continue
            if "address" in texts:
                texts.setdefault("channel", "email")
            recipients.append(Recipient(user=item.get("user"), context=item.get("context"), **texts))
        else:
            text = _("must be a key, an address, a label, or an object with %(names)s only")
            errors.append((f"recipients[{index}]", text % {"names": ", ".join(sorted(RECIPIENT_FIELDS))}))
    return recipients


def _read_mentions(value: Any, errors: list[tuple[str, Reason]]) -> list[Mention]:
    mentions = []
    for item in value if isinstance(value, list) else [None]:
        match item:
            case "all":
                mentions.append(Mention.everyone())
            case {"open_id": str(text), **others} if not others:
                mentions.append(Mention(OPEN_ID, text))
            case {"user_id": str(text), **others} if not others:
                mentions.append(Mention(USER_ID, text))
            case _:
                errors.append(("mentions", _('must be a list of {"open_id": ...}, {"user_id": ...} or "all"')))
                break
    return mentions
