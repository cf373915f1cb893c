"""Alert receivers: email and a Feishu bot. A receiver raises when it fails, and is retried at the next evaluation.

They are written here instead of taken from a library such as apprise, because an address that an operator sets must
pass the SSRF guard, and a log line must never show it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage

from notifications.conf import ServiceOptions, service_options
from notifications.exceptions import NotificationError
from notifications.providers.base import SendResult
from notifications.providers.feishu.bot import ADDRESS_RULES, FeishuBotProvider, post_signed
from notifications.providers.http.messages import Exchange
from notifications.providers.http.session import GuardedSession
from notifications.providers.response_rules import failure_code, interpret_response
from notifications.states import Outcome

Receiver = Callable[[str, str], None]
"""Sends an alert; called with subject and text."""


class ReceiverError(NotificationError):
    """The alert was not sent. The text holds no secret."""


def configured_receivers() -> dict[str, Receiver]:
    """Return the receivers that the settings name: "email" for ALERT_EMAILS, "feishu" for ALERT_FEISHU_WEBHOOK.

    Returns:
        Functions by name. Each takes subject and text, and raises ReceiverError, or any exception of the mail backend,
        when the alert was not sent.
    """
    options = service_options()
    receivers: dict[str, Receiver] = {}
    if options.alert_emails:
        receivers["email"] = _send_email
    if options.alert_feishu_webhook:
        receivers["feishu"] = _send_to_feishu
    return receivers


def _sender_name() -> str:
    return service_options().project_name or "Notifications"


def _send_email(subject: str, text: str) -> None:
    EmailMessage(
        f"{_sender_name()}: {subject}", text, from_email=settings.SERVER_EMAIL, to=list(service_options().alert_emails)
    ).send()


def _send_to_feishu(subject: str, text: str) -> None:
    options = service_options()
    if problem := ADDRESS_RULES.problem(options.alert_feishu_webhook, options):
        raise ReceiverError(f"ALERT_FEISHU_WEBHOOK {problem}")
    body = {"msg_type": "text", "content": {"text": f"{_sender_name()}: {text}"}}
    GuardedSession(options, private_hosts=options.feishu_hosts).run(_post_to_bot(options, body))


def _post_to_bot(options: ServiceOptions, body: dict[str, Any]) -> Exchange:
    response, _clock = yield from post_signed(options.alert_feishu_webhook, body, options.alert_feishu_secret)
    if isinstance(response, SendResult):
        raise ReceiverError(response.error_message)
    result = interpret_response(response, None, FeishuBotProvider.table)
    if result.outcome != Outcome.SUCCESS:
        raise ReceiverError(f"the bot answered HTTP {response.status}, code {failure_code(response)}")
    return result
