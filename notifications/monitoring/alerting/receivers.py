"""Sinks: the ways by which a person is told. Each raises when it could not, and is asked again at the next look."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache

from django.conf import settings
from django.core.mail import EmailMessage
from django.core.signals import setting_changed
from django.dispatch import receiver

from notifications.conf import service_options
from notifications.providers.base import SendResult
from notifications.providers.feishu.bot import ADDRESS_RULES
from notifications.providers.http.client import HttpPoster

Receiver = Callable[[str, str], None]
"""Takes subject and text."""


class ReceiverError(Exception):
    """Nobody was told; the text is free of secrets."""


def configured_receivers() -> dict[str, Receiver]:
    """Return the configured sinks by name."""
    options, found = service_options(), dict[str, Receiver]()
    if options.alert_emails:
        found["email"] = _email
    if options.alert_feishu_webhook:
        found["feishu"] = _feishu
    return found


def _sender_name() -> str:
    return service_options().project_name or "Notifications"


def _email(subject: str, text: str) -> None:
    EmailMessage(
        f"{_sender_name()}: {subject}", text, from_email=settings.SERVER_EMAIL, to=list(service_options().alert_emails)
    ).send()


def _feishu(subject: str, text: str) -> None:
    options = service_options()
    if problem := ADDRESS_RULES.problem(options.alert_feishu_webhook, options):
        raise ReceiverError(f"ALERT_FEISHU_WEBHOOK {problem}")
    body = {"msg_type": "text", "content": {"text": f"{_sender_name()}: {text}"}}
    answer = _poster().post(options.alert_feishu_webhook, json.dumps(body, ensure_ascii=False).encode(), {})
    if isinstance(answer, SendResult):
        raise ReceiverError(answer.error_message)
    try:
        said = json.loads(answer.text)
        code = said.get("code", said.get("StatusCode"))
    except (ValueError, AttributeError):
        code = None
    if code != 0:
        raise ReceiverError(f"the bot answered HTTP {answer.status}, code {code if isinstance(code, int) else '?'}")


@lru_cache(maxsize=1)
def _poster() -> HttpPoster:
    return HttpPoster(service_options())


@receiver(setting_changed)
def _forget_poster(*, setting: str, **kwargs: object) -> None:
    if setting == "NOTIFICATIONS":
        _poster.cache_clear()
