"""Sinks: the ways by which a person is told. Each raises when it could not, and is asked again at the next look."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.signals import setting_changed
from django.dispatch import receiver

from notifications.conf import ServiceOptions, service_options
from notifications.providers.base import SendResult
from notifications.providers.http import HttpPoster, origin_of

BOT_HOSTS = ("open.feishu.cn", "open.larksuite.com")
BOT_PATH = re.compile(r"/open-apis/bot/v2/hook/[A-Za-z0-9_-]{8,128}")

Sink = Callable[[str, str], None]
"""Takes subject and text."""


class SinkFailed(Exception):
    """Nobody was told; the text is free of secrets."""


def sinks() -> dict[str, Sink]:
    """Return the configured sinks by name."""
    options, found = service_options(), dict[str, Sink]()
    if options.alert_emails:
        found["email"] = _email
    if options.alert_feishu_webhook:
        found["feishu"] = _feishu
    return found


def bot_problem(options: ServiceOptions) -> str:
    """Return why ALERT_FEISHU_WEBHOOK cannot be used, or an empty string."""
    url = options.alert_feishu_webhook
    try:
        parts = urlsplit(url)
    except ValueError:
        return "is not an address"
    if origin_of(url) not in options.sandbox_origins and (parts.scheme != "https" or parts.netloc not in BOT_HOSTS):
        return f"must begin with https:// and be on one of {', '.join(BOT_HOSTS)}"
    if not BOT_PATH.fullmatch(parts.path) or parts.query or parts.fragment or "@" in parts.netloc:
        return "must be /open-apis/bot/v2/hook/ and a key"
    return ""


def _email(subject: str, text: str) -> None:
    EmailMessage(
        f"SmartMate: {subject}", text, from_email=settings.SERVER_EMAIL, to=list(service_options().alert_emails)
    ).send()


def _feishu(subject: str, text: str) -> None:
    options = service_options()
    if problem := bot_problem(options):
        raise SinkFailed(f"ALERT_FEISHU_WEBHOOK {problem}")
    body = {"msg_type": "text", "content": {"text": f"SmartMate: {text}"}}
    answer = _poster().post(options.alert_feishu_webhook, json.dumps(body, ensure_ascii=False).encode(), {})
    if isinstance(answer, SendResult):
        raise SinkFailed(answer.error_message)
    try:
        said = json.loads(answer.text)
        code = said.get("code", said.get("StatusCode"))
    except (ValueError, AttributeError):
        code = None
    if code != 0:
        raise SinkFailed(f"the bot answered HTTP {answer.status}, code {code if isinstance(code, int) else '?'}")


@lru_cache(maxsize=1)
def _poster() -> HttpPoster:
    return HttpPoster(service_options())


@receiver(setting_changed)
def _forget_poster(*, setting: str, **kwargs: object) -> None:
    if setting == "NOTIFICATIONS":
        _poster.cache_clear()
