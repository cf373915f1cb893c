"""A general message: what a caller of `notify` asks for, and its requests, one for each recipient and channel."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import translation
from django.utils.translation import gettext, gettext_lazy as _, pgettext

from notifications.conf import ServiceOptions
from notifications.content.link_policy import link_problem, text_problem
from notifications.content.message import EVERYONE, OPEN_ID, USER_ID, Mention, MessageContent
from notifications.content.templates import RenderedTexts, TemplateFailed, has_templates, render_kind
from notifications.content.text import is_visible
from notifications.ingest.payload import NotificationRequest
from notifications.ingest.recipients import Target, find_targets, read_recipients
from notifications.ingest.validation import Check, InvalidNotification, Reason, time_problem
from notifications.providers import get_provider
from notifications.providers.base import DataRules
from notifications.states import Priority

MAX_TITLE_CHARACTERS = 255
MAX_TEXT_CHARACTERS = 50_000
MAX_ACTION_CHARACTERS = 64
MAX_URL_CHARACTERS = 1024
MAX_KEY_CHARACTERS = 191
MAX_MENTIONS = 50
FIELDS = {"text", "title", "url", "action", "key", "kind", "data", "language", "priority", "order_key"}
"""Fields that are checked as those of an event are."""

_KIND = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MENTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What the caller asks for, the same for all recipients."""

    text: str = ""
    title: str = ""
    url: str = ""
    action: str = ""
    key: str = ""
    kind: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    language: str = ""
    mentions: tuple[Mention, ...] = ()
    priority: int = Priority.NORMAL.value
    deliver_at: datetime | None = None
    expires_at: datetime | None = None
    order_key: str = ""


def parse_message(arguments: Mapping[str, Any], options: ServiceOptions) -> Message:
    """Check the arguments of `notify` that are the same for all recipients.

    Args:
        arguments: The arguments, without `recipients` and `channels`.
        options: For the policy of links.

    Returns:
        The message. A key that is missing is made.

    Raises:
        InvalidNotification: At least one argument is wrong; `errors` lists each with its reason.
    """
    fields = {name: arguments.get(name) for name in FIELDS}
    check = Check({name: value for name, value in fields.items() if value not in (None, {})}, FIELDS)
    text = check.text("text", MAX_TEXT_CHARACTERS)
    title = check.line("title", MAX_TITLE_CHARACTERS, required=False)
    url = check.line("url", MAX_URL_CHARACTERS, required=False)
    action = check.line("action", MAX_ACTION_CHARACTERS, required=False)
    key = check.line("key", MAX_KEY_CHARACTERS, required=False)
    kind = check.line("kind", 64, required=False)
    order_key = check.line("order_key", MAX_KEY_CHARACTERS, required=False)
    language = check.line("language", 32, required=False)
    priority = check.integer_between("priority", min(Priority.values), max(Priority.values))
    if kind and not _KIND.fullmatch(kind):
        check.refuse("kind", _("must consist of letters, digits, hyphens and underscores"))
    elif not is_visible(text) and not kind:
        check.refuse("text", _("must not be blank"))
    elif not is_visible(text) and not has_templates(kind):
        check.refuse(
            "kind", _("has no template notifications/%(kind)s/text.txt, and there is no text") % {"kind": kind}
        )
    if url and (problem := link_problem(url, options)):
        check.refuse("url", problem)
    for name, value in (("text", text), ("title", title), ("action", action)):
        if problem := text_problem(value, options):
            check.refuse(name, problem)
    if language:
        language = _check_language(language, check)
    data, context = (_check_json(name, arguments.get(name), check) for name in ("data", "context"))
    mentions = _check_mentions(arguments.get("mentions") or (), check)
    times = {name: arguments.get(name) for name in ("deliver_at", "expires_at")}
    for name, moment in times.items():
        if moment is not None and not isinstance(moment, datetime):
            check.refuse(name, _("must be a datetime"))
        elif moment and (problem := time_problem(moment)):
            check.refuse(name, problem)
    check.raise_if_refused()
    if times["deliver_at"] and times["expires_at"] and times["expires_at"] <= times["deliver_at"]:
        raise InvalidNotification([("expires_at", _("must be later than deliver_at"))])
    return Message(
        text=text,
        title=title,
        url=url,
        action=action,
        key=key or uuid.uuid4().hex,
        kind=kind,
        context=context,
        data=data,
        language=language,
        mentions=mentions,
        priority=Priority.NORMAL.value if priority is None else priority,
        order_key=order_key,
        **times,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressedRequest:
    """A request and where it goes."""

    target: Target
    request: NotificationRequest


def address_message(
    message: Message, recipients: Any, channels: Iterable[str] | None, options: ServiceOptions, *, trace_id: str = ""
) -> list[AddressedRequest]:
    """Return the requests of a message: one for each recipient and channel.

    Args:
        message: The message.
        recipients: As for `read_recipients`.
        channels: Names of the channels; None for those of each recipient.
        options: For the default channel, the providers, and the user's language.
        trace_id: Joins the records with the logs of the caller.

    Raises:
        InvalidNotification: A recipient, a channel, a mention or a template is wrong.
    """
    if isinstance(channels, str):
        raise InvalidNotification([("channels", _("must be a list of names, not a text"))])
    named = None if channels is None else list(dict.fromkeys(channels))
    if named is not None and not named:
        raise InvalidNotification([("channels", _("must not be empty"))])
    targets = find_targets(read_recipients(recipients), named, options)
    distinct: dict[tuple[str, str], Target] = {}
    for target in targets:
        distinct.setdefault((target.token, target.channel), target)
    targets = list(distinct.values())
    _check_channels(message, targets)
    requests = []
    open_by_language: dict[str, str] = {}  # looking a text up takes longer than the rest
    for target in targets:
        context = _context_of(message, target)
        language = message.language or _language_of(target.user, options)
        texts = _render(message, context, language, target)
        if language not in open_by_language:
            open_by_language[language] = _open_in(language)
        action = message.action or (open_by_language[language] if message.url else "")
        if problem := text_problem(texts.text, options) or text_problem(texts.title, options):
            raise InvalidNotification([("kind", problem)])
        content = MessageContent(
            action=action,
            html=texts.html,
            data=message.data,
            mentions=message.mentions,
            language=language,
        )
        request = NotificationRequest(
            user_id=target.user_id,
            endpoint_id=target.endpoint_id,
            channel=target.channel,
            request_key=message.key,
            dedupe_key=_dedupe_key(message.key, target.token),
            order_key=message.order_key,
            kind=message.kind,
            title=texts.title,
            summary_text=texts.text,
            target_url=message.url,
            content=content.as_json(),
            priority=message.priority,
            trace_id=trace_id,
            preview_id="",
        )
        requests.append(AddressedRequest(target=target, request=request))
    return requests


def _open_in(language: str) -> str:
    """Return the text of a link that has none of its own, in the recipient's language."""
    with translation.override(language or settings.LANGUAGE_CODE):
        return pgettext("text of a link", "Open")


def _dedupe_key(key: str, token: str) -> str:
    """Return the key of a record: that of the caller and the endpoint. A long one is replaced by its hash."""
    if len(key) + len(token) + 1 <= MAX_KEY_CHARACTERS:
        return f"{key}|{token}"
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}|{token}"


def _render(message: Message, context: Mapping[str, Any], language: str, target: Target) -> RenderedTexts:
    if not message.kind:
        return RenderedTexts(message.title, message.text, "")
    try:
        texts = render_kind(message.kind, context, language)
    except TemplateFailed as error:
        raise InvalidNotification([("kind", str(error))]) from error
    texts = RenderedTexts(message.title or texts.title[:MAX_TITLE_CHARACTERS], message.text or texts.text, texts.html)
    values = {"number": target.recipient}
    if not is_visible(texts.text):
        raise InvalidNotification([("kind", _("the template text.txt is blank for recipient %(number)d") % values)])
    if len(texts.text) > MAX_TEXT_CHARACTERS or len(texts.html) > MAX_TEXT_CHARACTERS:
        raise InvalidNotification([("kind", _("a rendered text is longer than %d characters") % MAX_TEXT_CHARACTERS)])
    if any(_UNSTORABLE.search(text) for text in texts):
        raise InvalidNotification([("kind", _("a rendered text has characters that cannot be stored"))])
    return texts


def _context_of(message: Message, target: Target) -> dict[str, Any]:
    check = Check({}, ())
    own = _check_json(f"recipients[{target.recipient}]", target.context, check)
    check.raise_if_refused()
    return {**message.context, **own}


def _language_of(user: Any, options: ServiceOptions) -> str:
    """Return the language of a user by LANGUAGE_ATTRIBUTE, such as "language" or "profile.language"."""
    value = user
    for name in options.language_attribute.split(".") if options.language_attribute and user is not None else ():
        value = getattr(value, name, None)
    if not isinstance(value, str) or not value:
        return ""
    try:
        return translation.get_supported_language_variant(value.replace("_", "-"))
    except LookupError:
        return ""


def _check_language(language: str, check: Check) -> str:
    try:
        return translation.get_supported_language_variant(language.replace("_", "-"))
    except LookupError:
        known = ", ".join(code for code, _name in settings.LANGUAGES)
        check.refuse("language", _("is not among LANGUAGES: %(known)s") % {"known": known})
        return ""


def _check_json(name: str, value: Any, check: Check) -> dict[str, Any]:
    """Check an object of JSON values. PostgreSQL stores neither NUL nor lone surrogates in it."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        check.refuse(name, _("must be an object"))
        return {}
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        copy: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        check.refuse(name, _("must be JSON values: %(error)s") % {"error": error})
        return {}
    if any(_UNSTORABLE.search(part) for part in _texts(copy)):
        check.refuse(name, _("has characters that cannot be stored"))
        return {}
    return copy


def _texts(value: Any) -> Iterable[str]:
    """Yield all texts of a JSON value."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item


def _check_mentions(mentions: Any, check: Check) -> tuple[Mention, ...]:
    if not isinstance(mentions, Collection) or not all(isinstance(item, Mention) for item in mentions):
        check.refuse("mentions", _("must be a list of Mention"))
        return ()
    if len(mentions) > MAX_MENTIONS:
        check.refuse("mentions", _("must not be more than %(limit)d") % {"limit": MAX_MENTIONS})
    for item in mentions:
        if item.kind not in (OPEN_ID, USER_ID, EVERYONE) or not _MENTION_ID.fullmatch(item.value):
            check.refuse("mentions", _("has an id that is none of the vendor's"))
            break
    return tuple(mentions)


def _check_channels(message: Message, targets: Sequence[Target]) -> None:
    """Check what not every channel can do: mentions, and the providers' own parts of `data`."""
    if not message.mentions and not message.data:
        return
    errors: list[tuple[str, Reason]] = []
    for channel in sorted({target.channel for target in targets}):
        provider = get_provider(channel)
        if message.mentions and not getattr(provider, "can_mention", False):
            errors.append(("mentions", _("the channel %(channel)s cannot mention anybody") % {"channel": channel}))
        if isinstance(provider, DataRules) and (problem := provider.data_problem(message.data)):
            errors.append(("data", gettext(problem)))
    if errors:
        raise InvalidNotification(errors)
