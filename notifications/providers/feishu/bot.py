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
from collections.abc import Callable, Generator
from typing import Any, ClassVar

from django.utils.translation import gettext_noop

from notifications.conf import ServiceOptions
from notifications.content.text import drop_half_character
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
MAX_TEXT_LENGTH = 3000
"""Characters of the message; a longer one ends in an ellipsis.

With four bytes each, a request stays below the vendor's limit of 20 KB.
"""
_MENTION_TAG = re.compile(r"<(?=\s*/?\s*at\b)", re.IGNORECASE)


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
        message = FORMATS[self.format](parts)
        response, clock = yield from post_signed(url, message, secret)
        if message["msg_type"] != "interactive" or failure_code(response) != CARD_REFUSED_CODE:
            return self.read(response, message)
        card_response = self.read(response, message).response_payload
        message = build_text(parts)
        response, _clock = yield from post_signed(url, message, secret, clock=clock)
        result = self.read(response, message)
        return dataclasses.replace(result, response_payload={"card": card_response, "text": result.response_payload})

    def _build_parts(self, request: SendRequest) -> dict[str, str]:
        return {
            "title": self.title,
            "summary": _cut_text(request),
            "action_text": self.action_text,
            "action_url": self.action_url(request),
        }


def _cut_text(request: SendRequest) -> str:
    text = request.message_text
    if len(text) <= MAX_TEXT_LENGTH:
        return text
    logger.warning(
        "notification %d: %d of %d characters are posted",
        *(request.notification_id, MAX_TEXT_LENGTH - 1, len(text)),
        extra={"event": "message.cut", "record_id": request.notification_id, "length": len(text)},
    )
    return f"{drop_half_character(text[: MAX_TEXT_LENGTH - 1])}…"


def build_text(parts: dict[str, str]) -> dict[str, Any]:
    """Return a text message. Tags in the summary are disabled, so that it cannot mention members of the group.

    Args:
        parts: `title`, `summary`, `action_text` and `action_url`.
    """
    summary = _MENTION_TAG.sub("＜", parts["summary"])
    text = f"{parts['title']}\n{summary}\n{parts['action_text']}: {parts['action_url']}"
    return {"msg_type": "text", "content": {"text": text}}


def build_post(parts: dict[str, str]) -> dict[str, Any]:
    """Return a rich text message ("post").

    Args:
        parts: As for `build_text`.
    """
    lines = [
        [{"tag": "text", "text": parts["summary"]}],
        [{"tag": "a", "text": parts["action_text"], "href": parts["action_url"]}],
    ]
    return {"msg_type": "post", "content": {"post": {"zh_cn": {"title": parts["title"], "content": lines}}}}


def build_card(parts: dict[str, str]) -> dict[str, Any]:
    """Return a card. Its texts are plain text, so they contain neither markup nor mentions.

    Args:
        parts: As for `build_text`.
    """
    button = {"tag": "button", "type": "primary", "text": _plain_text(parts["action_text"]), "url": parts["action_url"]}
    card = {
        "config": {"wide_screen_mode": True},
        "header": {"title": _plain_text(parts["title"])},
        "elements": [{"tag": "div", "text": _plain_text(parts["summary"])}, {"tag": "action", "actions": [button]}],
    }
    return {"msg_type": "interactive", "card": card}


FORMATS: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
    "card": build_card,
    "post": build_post,
    "text": build_text,
}
"""Builder of a message by the value of FEISHU_BOT_FORMAT."""


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
