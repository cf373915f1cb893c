"""Base class of the providers that post JSON to an address of the user."""

from __future__ import annotations

import dataclasses
import inspect
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar

from notifications.conf import ServiceOptions, service_options
from notifications.content.json_encoding import encode_json
from notifications.providers.attempt import without_secrets
from notifications.providers.base import Endpoint, SendRequest, SendResult, message_link
from notifications.providers.http.client import HttpPoster
from notifications.providers.http.messages import Exchange, HttpRequest, HttpResponse
from notifications.providers.response_rules import RuleTable, interpret_response
from notifications.security.address_secrets import secret_parts
from notifications.security.secrets import SecretUnreadable
from notifications.states import AuthType, ErrorCode, Outcome

MAX_EXACT_INTEGER = 2**53 - 1
"""Largest whole number that a program can read exactly whose numbers are all floats, as in JavaScript."""

MAX_REMEMBERED_ADDRESSES = 1000
"""Addresses whose check is remembered, as many as are kept decrypted."""


class WebhookProvider(ABC):
    """Posts a message to the user's address.

    This class skips users without a usable channel, decrypts the secrets, checks the address, and removes the secrets
    from the result. A subclass sets the class attributes and implements `address_problem` and `deliver`.

    It does no I/O: it says what to send and what the answer means, and the engine sends. So one thread can send any
    number of messages at a time, and a test needs no server.

    The keyword arguments are the OPTIONS of the channel in PROVIDERS.

    Args:
        options: The options of the project; by default those of `settings.NOTIFICATIONS`.
        event: Event name in the fields; by default EVENT_NAME.
        title: Title of the message; by default MESSAGE_TITLE.
        action_text: Text of the button or link; by default ACTION_TEXT.
    """

    channel: ClassVar[str]
    """Key in PROVIDERS and value of the record's `channel`."""
    name: ClassVar[str]
    """Name of the channel in error texts, in English."""
    table: ClassVar[RuleTable]
    """What the endpoint's responses mean."""
    auth_types: ClassVar[tuple[AuthType, ...]]
    """The kinds of authentication that a channel may have."""
    address_optional: ClassVar[bool] = False
    named_hosts: ClassVar[str] = ""
    """Name of the option that lists hosts which the operator has named; they may be in a private network."""

    def __init__(
        self, options: ServiceOptions | None = None, *, event: str = "", title: str = "", action_text: str = ""
    ) -> None:
        self.options = options or service_options()
        self.event = event or self.options.event_name
        self.title = title or self.options.message_title
        self.action_text = action_text or self.options.action_text
        named = getattr(self.options, self.named_hosts) if self.named_hosts else ()
        self.poster = HttpPoster(self.options, private_hosts=named)
        # What it says of an address does not change while the provider lives.
        self._remembered_problem = lru_cache(maxsize=MAX_REMEMBERED_ADDRESSES)(self.address_problem)

    @abstractmethod
    def address_problem(self, url: str) -> str:
        """Return why an address is not accepted, or an empty string. Mark the texts with `gettext_noop`."""

    def secret_problem(self, secret: str) -> str:
        """Return why a secret is not accepted, or an empty string. Mark the texts with `gettext_noop`."""
        return ""

    @abstractmethod
    def deliver(self, request: SendRequest, url: str, secret: str) -> Exchange:
        """Say what to post, and return what the answer means.

        It is a generator: `response = yield HttpRequest(...)`, as often as necessary, and then `return self.read(...)`.
        A subclass may also post by itself, with `self.post`, and return a SendResult. The engine then calls it in a
        thread.

        Args:
            request: The message.
            url: The user's address, accepted by `address_problem`.
            secret: The user's token or signing secret; blank if the channel has no authentication in `auth_types`.
        """

    @property
    def blocks(self) -> bool:
        """Whether a subclass does I/O of its own, so that the engine must call `send` in a thread."""
        kind = type(self)
        return kind.send is not WebhookProvider.send or not inspect.isgeneratorfunction(kind.deliver)

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Post the message to the user's endpoint from this thread, and wait for the result.

        Args:
            request: The message.
            endpoint: The user's channel settings, or None.

        Returns:
            The result of `exchange`.
        """
        return self.poster.run(self.exchange(request, endpoint))

    def exchange(self, request: SendRequest, endpoint: Endpoint | None) -> Exchange:
        """Say what to post to the user's endpoint, and return what the answer means. Does no I/O.

        Args:
            request: The message.
            endpoint: The user's channel settings, or None.

        Returns:
            The result of `deliver` without secrets. Skipped if there is no endpoint or it is disabled. A temporary
            failure if the secrets cannot be decrypted. A permanent failure if the address is not accepted.
        """
        if endpoint is None or not endpoint.enabled or not endpoint.webhook_url:
            text = f"the user has no {self.name} channel" if endpoint is None else "the channel is disabled"
            return SendResult(outcome=Outcome.SKIPPED, error_code=ErrorCode.RECIPIENT_MISSING, error_message=text)
        try:
            url = endpoint.webhook_url.reveal()
            secret = ""
            if endpoint.auth_type != AuthType.NONE and endpoint.auth_type in self.auth_types:
                secret = endpoint.bearer_token.reveal()
        except SecretUnreadable as error:
            # Temporary: the correct key in ENCRYPTION_KEYS repairs this for all records.
            return SendResult(
                outcome=Outcome.TEMPORARY_FAIL, error_code=ErrorCode.PROVIDER_CONFIG, error_message=str(error)
            )
        if problem := self._remembered_problem(url):
            return SendResult(
                outcome=Outcome.PERMANENT_FAIL,
                error_code=ErrorCode.INVALID_URL,
                error_message=f"the webhook address {problem}",
            )
        delivery: Exchange | SendResult = self.deliver(request, url, secret)
        result = delivery if isinstance(delivery, SendResult) else (yield from delivery)
        return without_secrets(result, secret.split(","), secret_parts(url))

    def post(self, url: str, payload: Any, headers: dict[str, str]) -> SendResult:
        """Post a JSON value once from this thread, and return what the response means.

        Args:
            url: The user's address.
            payload: JSON value.
            headers: Further HTTP headers.
        """
        return self.read(self.poster.post(url, encode_json(payload), headers), payload)

    def read(self, response: HttpResponse | SendResult, payload: Any) -> SendResult:
        """Return what a response means, by `table`.

        Args:
            response: What the request was answered with, or the failed result if there was no answer.
            payload: The JSON value that was sent; kept with the result.
        """
        if isinstance(response, SendResult):
            return dataclasses.replace(response, request_payload=payload)
        return interpret_response(response, payload, self.table)

    def fields(self, request: SendRequest) -> dict[str, Any]:
        """Return the message as JSON fields. Users build their flows on these fields, so they are stable.

        JavaScript, and tools made with it, round a number beyond MAX_EXACT_INTEGER (RFC 8259, section 6, names this
        bound). Such a number has its digits as a text beside it, in the field of the same name with `_str`.
        """
        fields: dict[str, Any] = {
            "notification_id": request.notification_id,
            "user_id": request.user_id,
            "preview_id": request.preview_id,
            "trigger_id": request.trigger_id,
            "trigger_type": request.trigger_type,
            "target_type": request.target_type,
            "target_id": request.target_id,
            "message": {
                "title": self.title_of(request),
                "summary": request.message_text,
                "action_text": self.action_text_of(request),
                "action_url": self.action_url(request),
            },
        }
        if request.content is not None:
            fields |= {"key": request.key, "kind": request.kind, "data": dict(request.content.data)}
        if request.trace_id:
            fields["trace_id"] = request.trace_id
        numbers = {name: value for name, value in fields.items() if isinstance(value, int)}
        return fields | {f"{name}_str": str(value) for name, value in numbers.items() if abs(value) > MAX_EXACT_INTEGER}

    def event_of(self, request: SendRequest) -> str:
        """Return the name of the event: the kind of the message, if it has one."""
        return request.kind or self.event

    def title_of(self, request: SendRequest) -> str:
        """Return the title: that of the message, which may be blank; the provider's own for an event."""
        return self.title if request.content is None else request.title

    def action_text_of(self, request: SendRequest) -> str:
        """Return the text of the link: that of the message, else the provider's own."""
        return (request.content.action if request.content else "") or self.action_text

    def action_url(self, request: SendRequest) -> str:
        """Return the absolute address of the message's link; blank if it has none."""
        return message_link(request, self.options)


def json_request(url: str, payload: Any, headers: dict[str, str] | None = None) -> HttpRequest:
    """Return the request that posts a JSON value.

    Args:
        url: The user's address.
        payload: JSON value.
        headers: Further HTTP headers.
    """
    return HttpRequest(url, encode_json(payload), headers or {})
