"""Feishu and Lark custom bots: a bot of a group posts the message as a card, a post or a text.

docs/providers.md describes the signature, the rate limits and the error codes. The API is not idempotent: a repeated
request is a second message.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.utils.translation import gettext_noop

from notifications.conf import ServiceOptions
from notifications.content.json_encoding import encode_json
from notifications.content.message import MessageContent
from notifications.content.text import whole_characters
from notifications.providers.base import SendRequest, SendResult
from notifications.providers.feishu.error_codes import FEISHU_RULES
from notifications.providers.http.messages import Exchange, HttpRequest, HttpResponse, parse_http_date
from notifications.providers.http.url_rules import AddressRules
from notifications.providers.response_rules import failure_code
from notifications.providers.webhook_base import WebhookProvider, json_request
from notifications.states import AuthType

logger = logging.getLogger("notifications.providers")

ADDRESS_RULES = AddressRules(
    named_hosts="feishu_hosts",
    # The bot guide names the first two; public programs also use the third, where the vendor's documents are.
    hosts=re.compile(r"open\.(feishu\.cn|larksuite\.com|larkoffice\.com)"),
    wrong_host=gettext_noop("must be on open.feishu.cn, open.larksuite.com or open.larkoffice.com"),
    path=re.compile(r"/open-apis/bot/v2/hook/[A-Za-z0-9_-]{8,128}"),
    wrong_path=gettext_noop("must be /open-apis/bot/v2/hook/ and a key"),
)
CARD_REFUSED_CODE = 11246
SIGNATURE_REFUSED_CODE = 19021
MAX_MESSAGE_BYTES = 19 * 1024
"""Longest message without its signature. The vendor takes 20 KB (custom bot guide). A longer text is cut."""
CARD_COLOURS = ("blue", "wathet", "turquoise", "green", "yellow", "orange", "red", "purple", "grey")
MAX_CARD_FIELDS = 40
POST_LOCALES = {"zh": "zh_cn", "en": "en_us", "ja": "ja_jp"}
"""Locale of a post by the language of its reader. A client without the locale of a post shows the one that is there."""
_MENTION_TAG = re.compile(r"<(?=\s*/?\s*at(?![a-z0-9_]))", re.IGNORECASE)


class FeishuBotProvider(WebhookProvider):
    """Posts as a custom bot in a group.

    Args:
        options: The options of the project; by default those of `settings.NOTIFICATIONS`.
        format: "card", "post" or "text"; by default FEISHU_BOT_FORMAT.
        **texts: The options that every webhook provider has.

    Raises:
        ValueError: The format is unknown.
    """

    channel = "feishu_bot"
    name = "Feishu bot"
    table = FEISHU_RULES
    named_hosts = "feishu_hosts"
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.NONE, AuthType.SIGNATURE)
    limits: ClassVar[str] = "5/second;100/minute"  # the vendor's limit per bot
    can_mention: ClassVar[bool] = True
    crowded_half_hours: ClassVar[bool] = True  # the vendor advises against these times, when code 11232 is frequent

    def __init__(self, options: ServiceOptions | None = None, *, format: str = "", **texts: str) -> None:  # noqa: A002
        super().__init__(options, **texts)
        self.format = format or self.options.feishu_bot_format
        if format and format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}")

    def address_problem(self, url: str) -> str:
        """Return why an address is not the address of a custom bot, or an empty string."""
        return ADDRESS_RULES.problem(url, self.options)

    def deliver(self, request: SendRequest, url: str, secret: str) -> Exchange:
        """Ask to post the message, signed if the channel has a secret.

        One attempt posts up to three times. If the vendor refuses the signature, the message is signed once more by the
        vendor's clock. If it refuses the card, the message is posted as a text. A refused request posted nothing, so
        the group sees the message once. All requests share the deadline of one attempt.

        Args:
            request: The message.
            url: The bot's address.
            secret: The bot's signing secret, or blank.
        """
        parts = self._build_parts(request)
        formats = FORMATS if request.content is None else MESSAGE_FORMATS
        message = _shorten(parts, formats[self.format], request)
        response, clock = yield from post_signed(url, message, secret)
        if message["msg_type"] != "interactive" or failure_code(response) != CARD_REFUSED_CODE:
            return self.read(response, message)
        card_response = self.read(response, message).response_payload
        message = _shorten(parts, formats["text"], request)
        response, _clock = yield from post_signed(url, message, secret, clock=clock)
        result = self.read(response, message)
        return dataclasses.replace(result, response_payload={"card": card_response, "text": result.response_payload})

    def data_problem(self, data: Mapping[str, Any]) -> str:
        """Return why `data["feishu"]` of a message cannot be used, or an empty string."""
        return feishu_data_problem(data["feishu"]) if "feishu" in data else ""

    def _build_parts(self, request: SendRequest) -> MessageParts:
        return MessageParts(
            title=self.title_of(request),
            summary=request.message_text,
            action_text=self.action_text_of(request),
            action_url=self.action_url(request),
            content=request.content or MessageContent(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageParts:
    """What a message shows."""

    title: str
    """Blank only for a message of `notify`."""
    summary: str
    action_text: str
    action_url: str
    """Blank only for a message of `notify`: then there is no link."""
    content: MessageContent = field(default_factory=MessageContent)

    @property
    def look(self) -> Mapping[str, Any]:
        """The colour and the fields of a card."""
        look: Mapping[str, Any] = self.content.data.get("feishu", {})
        return look


def feishu_data_problem(data: Any) -> str:
    """Return why `data["feishu"]` of a message cannot be used, or an empty string. Mark the texts with `gettext_noop`.

    Args:
        data: {"colour": one of CARD_COLOURS, "fields": {name: text}}; both are optional.
    """
    if not isinstance(data, Mapping) or data.keys() - {"colour", "fields"}:
        return gettext_noop("feishu: must be an object with colour and fields only")
    if data.get("colour", "blue") not in CARD_COLOURS:
        return gettext_noop(
            "feishu: colour must be blue, wathet, turquoise, green, yellow, orange, red, purple or grey"
        )
    fields = data.get("fields", {})
    if not isinstance(fields, Mapping) or not all(isinstance(value, str) for value in fields.values()):
        return gettext_noop("feishu: fields must be an object of texts")
    if len(fields) > MAX_CARD_FIELDS:
        return gettext_noop("feishu: fields must not be more than 40")
    return ""


def _shorten(
    parts: MessageParts, build: Callable[[MessageParts], dict[str, Any]], request: SendRequest
) -> dict[str, Any]:
    """Return the message, with so much of its text that the request is no longer than the vendor allows.

    Title, link and mentions stay whole.
    """
    message, text = build(parts), parts.summary
    while (excess := len(encode_json(message)) - MAX_MESSAGE_BYTES) > 0 and text:
        # Escapes make a text longer: the excess in bytes is at least a sixth of it in characters.
        keep = max(0, min(len(text) - 1, len(text) - 1 - max(1, excess // 6)))
        text = text[: whole_characters(text, keep)] if keep else ""
        message = build(dataclasses.replace(parts, summary=f"{text}…"))
    if text != parts.summary:
        logger.warning(
            "notification %d: %d of %d characters are posted",
            *(request.notification_id, len(text), len(parts.summary)),
            extra={"event": "message.cut", "record_id": request.notification_id, "length": len(parts.summary)},
        )
    return message


def build_text(parts: MessageParts) -> dict[str, Any]:
    """Return a text message. Tags in its texts are disabled, so that they cannot mention members of the group.

    Args:
        parts: What the message shows.
    """
    link = f"{parts.action_text}: {parts.action_url}" if parts.action_url else ""
    # Together, because a tag may begin at the end of one line and go on in the next.
    text = _MENTION_TAG.sub("＜", "\n".join(filter(None, (parts.title, parts.summary, link))))
    mentions = " ".join(f'<at user_id="{item.value}"></at>' for item in parts.content.mentions)
    return {"msg_type": "text", "content": {"text": "\n".join(filter(None, (text, mentions)))}}


def build_post(parts: MessageParts) -> dict[str, Any]:
    """Return a rich text message ("post").

    Args:
        parts: As for `build_text`.
    """
    lines: list[list[dict[str, Any]]] = [[{"tag": "text", "text": parts.summary}]]
    if parts.action_url:
        lines.append([{"tag": "a", "text": parts.action_text, "href": parts.action_url}])
    if parts.content.mentions:
        lines.append([{"tag": "at", "user_id": item.value} for item in parts.content.mentions])
    locale = POST_LOCALES.get(parts.content.language.partition("-")[0], "en_us") if parts.content.language else "zh_cn"
    return {"msg_type": "post", "content": {"post": {locale: {"title": parts.title, "content": lines}}}}


def build_card(parts: MessageParts) -> dict[str, Any]:
    """Return a card. Its texts are plain text, so they contain neither markup nor mentions.

    Args:
        parts: As for `build_text`.
    """
    button = {"tag": "button", "type": "primary", "text": _plain_text(parts.action_text), "url": parts.action_url}
    card = {
        "config": {"wide_screen_mode": True},
        "header": {"title": _plain_text(parts.title)},
        "elements": [{"tag": "div", "text": _plain_text(parts.summary)}, {"tag": "action", "actions": [button]}],
    }
    return {"msg_type": "interactive", "card": card}


def build_message_card(parts: MessageParts) -> dict[str, Any]:
    """Return a card of the vendor's JSON 2.0, for a message of `notify`. Only typed mentions are markup.

    Args:
        parts: As for `build_text`.
    """
    elements: list[dict[str, Any]] = [{"tag": "div", "text": _plain_text(parts.summary)}]
    if fields := parts.look.get("fields"):
        shown = [{"is_short": True, "text": _plain_text(f"{name}\n{value}")} for name, value in fields.items()]
        elements.append({"tag": "div", "fields": shown})
    if parts.content.mentions:
        tags = " ".join(f"<at id={item.value}></at>" for item in parts.content.mentions)
        elements.append({"tag": "markdown", "content": tags})
    if parts.action_url:
        opens = {"type": "open_url", "default_url": parts.action_url}
        text = _plain_text(parts.action_text)
        elements.append({"tag": "button", "type": "primary", "text": text, "behaviors": [opens]})
    card: dict[str, Any] = {"schema": "2.0", "body": {"elements": elements}}
    if parts.title:
        card["header"] = {"title": _plain_text(parts.title), "template": parts.look.get("colour", "blue")}
    return {"msg_type": "interactive", "card": card}


FORMATS: dict[str, Callable[[MessageParts], dict[str, Any]]] = {
    "card": build_card,
    "post": build_post,
    "text": build_text,
}
"""Builder of an event's message by the value of FEISHU_BOT_FORMAT. Its card is one that old clients show, too."""
MESSAGE_FORMATS = FORMATS | {"card": build_message_card}
"""Builder of a message of `notify`."""


def post_signed(
    url: str, message: dict[str, Any], secret: str, *, clock: float = 0.0
) -> Generator[HttpRequest, HttpResponse | SendResult, tuple[HttpResponse | SendResult, float]]:
    """Ask to post a message to a bot. If the vendor refuses the signature, sign once more by the vendor's clock.

    Args:
        url: The bot's address.
        message: The message, without a signature.
        secret: The bot's signing secret, or blank.
        clock: Unix time in seconds for the signature; 0 for our own.

    Returns:
        The response, or the failed result if there was none; and the time of the last signature.
    """
    clock = clock or time.time()
    response = yield json_request(url, sign_message(message, secret, clock))
    if secret and failure_code(response) == SIGNATURE_REFUSED_CODE:
        clock = _read_vendor_clock(response)
        response = yield json_request(url, sign_message(message, secret, clock))
    return response, clock


def sign_message(message: dict[str, Any], secret: str, timestamp: float) -> dict[str, Any]:
    """Return the message with the vendor's signature; without a secret, the message itself.

    The vendor uses the timestamp and the secret as the HMAC key and an empty HMAC message. That is unusual but correct
    (custom bot guide, "Signature verification").

    Args:
        message: The message to post.
        secret: The bot's signing secret, or blank.
        timestamp: Unix time in seconds.
    """
    if not secret:
        return message
    seconds = str(int(timestamp))
    digest = hmac.new(f"{seconds}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return {"timestamp": seconds, "sign": base64.b64encode(digest).decode()} | message


def _plain_text(text: str) -> dict[str, str]:
    return {"tag": "plain_text", "content": text}


def _read_vendor_clock(response: HttpResponse | SendResult) -> float:
    """Return the Unix time of the vendor, which checks the signature by it; our own time if it sent none."""
    try:
        date = response.headers.get("date", "") if isinstance(response, HttpResponse) else ""
        return parse_http_date(date)
    except ValueError:
        return time.time()
