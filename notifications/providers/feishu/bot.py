"""Feishu and Lark custom bots: a group's own bot posts the message, as a card, a post or a text.

Signature, limits and codes: docs/providers.md. A bot has no idempotency: a repeated request is a second message.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

from django.utils.translation import gettext_noop

from notifications.conf import ServiceOptions
from notifications.providers.base import SendRequest, SendResult
from notifications.providers.feishu.error_codes import FEISHU_RULES
from notifications.providers.http.client import HttpResponse
from notifications.providers.http.url_rules import AddressRules
from notifications.providers.response_rules import failure_code
from notifications.providers.webhook_base import WebhookProvider, encode_json
from notifications.states import AuthType

ADDRESS_RULES = AddressRules(
    hosts=re.compile(r"open\.(feishu\.cn|larksuite\.com)"),
    wrong_host=gettext_noop("must be on open.feishu.cn or open.larksuite.com"),
    path=re.compile(r"/open-apis/bot/v2/hook/[A-Za-z0-9_-]{8,128}"),
    wrong_path=gettext_noop("must be /open-apis/bot/v2/hook/ and a key"),
)
CARD_REFUSED = 11246
SIGNATURE_REFUSED = 19021
TEXT_LIMIT = 3000
"""Characters of the message: four bytes each stay below the 20 KB that a request may have, with all around them."""
_MENTION = re.compile(r"<(?=\s*/?\s*at\b)", re.IGNORECASE)


class FeishuBotProvider(WebhookProvider):
    """Lets a group's bot speak."""

    channel = "feishu_bot"
    name = "Feishu bot"
    table = FEISHU_RULES
    auth_types: ClassVar[tuple[AuthType, ...]] = (AuthType.NONE, AuthType.SIGNATURE)
    limits: ClassVar[str] = "5/second;100/minute"  # Feishu's, per bot
    crowded_half_hours: ClassVar[bool] = True  # Feishu answers 11232 then, and asks to keep away

    def __init__(self, options: ServiceOptions | None = None, *, format: str = "", **texts: str) -> None:  # noqa: A002
        """Take the OPTIONS of the channel's entry in PROVIDERS.

        Args:
            options: The app's options; settings.NOTIFICATIONS by default.
            format: card, post or text; FEISHU_BOT_FORMAT by default.
            texts: The options of every webhook provider.

        Raises:
            ValueError: The format is not known.
        """
        super().__init__(options, **texts)
        self.format = format or self.options.feishu_bot_format
        if format and format not in FORMATS:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}")

    def address_problem(self, url: str) -> str:
        """Return why this is no bot's address."""
        return ADDRESS_RULES.problem(url, self.options)

    def deliver(self, request: SendRequest, url: str, secret: str) -> SendResult:
        """Post the message, signed if there is a secret; all within the time of one attempt.

        A signature that is refused is made once more by the endpoint's clock, a card that is refused becomes a text:
        neither was posted, so nothing is posted twice.
        """
        deadline, moment = self.poster.deadline(), time.time()
        parts = self._parts(request)
        message = FORMATS[self.format](parts)

        def post() -> HttpResponse | SendResult:
            return self.poster.post(url, encode_json(signed(message, secret, moment)), {}, deadline=deadline)

        answer = post()
        if secret and failure_code(answer) == SIGNATURE_REFUSED:
            moment = _their_clock(answer)
            answer = post()
        if message["msg_type"] != "interactive" or failure_code(answer) != CARD_REFUSED:
            return self.read(answer, message)
        refused = self.read(answer, message).response_payload
        message = as_text(parts)
        result = self.read(post(), message)
        return dataclasses.replace(result, response_payload={"card": refused, "text": result.response_payload})

    def _parts(self, request: SendRequest) -> dict[str, str]:
        return {
            "title": self.title,
            "summary": request.message_text[:TEXT_LIMIT],
            "action_text": self.action_text,
            "action_url": self.action_url(request),
        }


def as_text(parts: dict[str, str]) -> dict[str, Any]:
    """Return a text message. The summary comes from elsewhere and must mention nobody, least of all everybody."""
    summary = _MENTION.sub("＜", parts["summary"])
    text = f"{parts['title']}\n{summary}\n{parts['action_text']}: {parts['action_url']}"
    return {"msg_type": "text", "content": {"text": text}}


def as_post(parts: dict[str, str]) -> dict[str, Any]:
    """Return a rich text message."""
    lines = [
        [{"tag": "text", "text": parts["summary"]}],
        [{"tag": "a", "text": parts["action_text"], "href": parts["action_url"]}],
    ]
    return {"msg_type": "post", "content": {"post": {"zh_cn": {"title": parts["title"], "content": lines}}}}


def as_card(parts: dict[str, str]) -> dict[str, Any]:
    """Return a card; all of it plain text, which marks up and mentions nothing."""
    button = {"tag": "button", "type": "primary", "text": _plain(parts["action_text"]), "url": parts["action_url"]}
    card = {
        "config": {"wide_screen_mode": True},
        "header": {"title": _plain(parts["title"])},
        "elements": [{"tag": "div", "text": _plain(parts["summary"])}, {"tag": "action", "actions": [button]}],
    }
    return {"msg_type": "interactive", "card": card}


FORMATS: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {"card": as_card, "post": as_post, "text": as_text}


def signed(message: dict[str, Any], secret: str, moment: float) -> dict[str, Any]:
    """Return the message with the vendor's signature of this moment, or as it is without a secret.

    Timestamp and secret are the key and the message is empty, the wrong way round as it looks.
    """
    if not secret:
        return message
    timestamp = str(int(moment))
    digest = hmac.new(f"{timestamp}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return {"timestamp": timestamp, "sign": base64.b64encode(digest).decode()} | message


def _plain(text: str) -> dict[str, str]:
    return {"tag": "plain_text", "content": text}


def _their_clock(answer: HttpResponse | SendResult) -> float:
    """Return the time by the endpoint's clock, which judges the signature; by ours if it does not say."""
    try:
        told = answer.headers.get("date", "") if isinstance(answer, HttpResponse) else ""
        return parsedate_to_datetime(told).timestamp()
    except (TypeError, ValueError, OverflowError):
        return time.time()
