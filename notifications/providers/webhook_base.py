"""What all providers do alike that post to an address of the user's own."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from notifications.conf import ServiceOptions, service_options
from notifications.providers.base import Endpoint, SendRequest, SendResult, without_secrets
from notifications.providers.http.client import HttpPoster, HttpResponse
from notifications.providers.response_rules import RuleTable, interpret_response
from notifications.security.secrets import SecretUnreadable
from notifications.states import AuthType, ErrorCode, Outcome

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


class WebhookProvider(ABC):
    """Skips who cannot be told, reads the secrets, checks the address, and hides the secrets in what comes back."""

    channel: ClassVar[str]
    name: ClassVar[str]
    """What people call it, in English, in errors."""
    table: ClassVar[RuleTable]
    auth_types: ClassVar[tuple[AuthType, ...]]
    address_optional: ClassVar[bool] = False

    def __init__(
        self, options: ServiceOptions | None = None, *, event: str = "", title: str = "", action_text: str = ""
    ) -> None:
        """Take the OPTIONS of the channel's entry in PROVIDERS; what is blank is the setting of all channels.

        Args:
            options: The app's options; settings.NOTIFICATIONS by default.
            event: Event name in the fields, instead of EVENT_NAME.
            title: Title of the message, instead of MESSAGE_TITLE.
            action_text: Text of the button or link, instead of ACTION_TEXT.
        """
        self.options = options or service_options()
        self.event = event or self.options.event_name
        self.title = title or self.options.message_title
        self.action_text = action_text or self.options.action_text
        self.poster = HttpPoster(self.options)

    @abstractmethod
    def address_problem(self, url: str) -> str:
        """Return why this address may not be used, or an empty string; the admin's form translates it."""

    def secret_problem(self, secret: str) -> str:
        """Return why this secret cannot be used, or an empty string; the admin's form translates it."""
        return ""

    @abstractmethod
    def deliver(self, request: SendRequest, url: str, secret: str) -> SendResult:
        """Post the message. secret: blank unless the channel has an authentication of ours."""

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Post the message to the user's endpoint; skipped when there is none or it is switched off."""
        if endpoint is None or not endpoint.enabled or not endpoint.webhook_url:
            text = f"the user has no {self.name} channel" if endpoint is None else "the channel is switched off"
            return SendResult(outcome=Outcome.SKIPPED, error_code=ErrorCode.RECIPIENT_MISSING, error_message=text)
        try:
            url = endpoint.webhook_url.reveal()
            secret = ""
            if endpoint.auth_type != AuthType.NONE and endpoint.auth_type in self.auth_types:
                secret = endpoint.bearer_token.reveal()
        except SecretUnreadable as error:
            # Temporary: the right key in the settings mends it without touching the record.
            return SendResult(
                outcome=Outcome.TEMPORARY_FAIL, error_code=ErrorCode.PROVIDER_CONFIG, error_message=str(error)
            )
        if problem := self.address_problem(url):
            return SendResult(
                outcome=Outcome.PERMANENT_FAIL,
                error_code=ErrorCode.INVALID_URL,
                error_message=f"the webhook address {problem}",
            )
        return without_secrets(self.deliver(request, url, secret), (url.rpartition("/")[2], *secret.split(",")))

    def post(self, url: str, payload: Any, headers: dict[str, str]) -> SendResult:
        """Post JSON once and return what came of it."""
        return self.read(self.poster.post(url, encode_json(payload), headers), payload)

    def read(self, answer: HttpResponse | SendResult, payload: Any) -> SendResult:
        """Return what an answer to `payload` means."""
        if isinstance(answer, SendResult):
            return dataclasses.replace(answer, request_payload=payload)
        return interpret_response(answer, payload, self.table)

    def fields(self, request: SendRequest) -> dict[str, Any]:
        """Return the message as the fields that users build on: they are stable."""
        fields: dict[str, Any] = {
            "notification_id": request.notification_id,
            "user_id": request.user_id,
            "preview_id": request.preview_id,
            "trigger_id": request.trigger_id,
            "trigger_type": request.trigger_type,
            "target_type": request.target_type,
            "target_id": request.target_id,
            "message": {
                "title": self.title,
                "summary": request.message_text,
                "action_text": self.action_text,
                "action_url": self.action_url(request),
            },
        }
        if request.trace_id:
            fields["trace_id"] = request.trace_id
        return fields

    def action_url(self, request: SendRequest) -> str:
        """Return where the message's link leads."""
        return self.options.frontend_base_url.rstrip("/") + request.target_url


def encode_json(payload: Any) -> bytes:
    """Return the body of a request."""
    return _ENCODE(payload).encode()
