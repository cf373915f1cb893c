"""The interface between the delivery engine and the providers: requests, endpoints, results, and rules of channels."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from notifications._moved import forward
from notifications.conf import ServiceOptions
from notifications.content.links import site_link
from notifications.content.message import MessageContent
from notifications.exceptions import NotificationError
from notifications.security.secrets import Secret
from notifications.states import AuthType

RENAMED = {"attempt": "attempt_send", "normalize": "normalize_result"}

__getattr__ = forward(__name__, "notifications.providers.attempt", renamed=RENAMED)

MAY_HAVE_ARRIVED = "the message may have arrived"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """One message for one recipient, as every provider receives it.

    The fields up to `trace_id` are those of the Go service's request. `content` is set for a message of `notify`.
    """

    notification_id: int
    """Primary key of the record."""
    user_id: int | str | None
    """Key of the user: a number if the project's users have integer keys, else a text, such as that of a UUID. None if
    the endpoint belongs to nobody."""
    trigger_id: str
    preview_id: str
    trigger_type: str
    target_type: str
    target_id: int
    target_url: str
    """Path of the link, below FRONTEND_BASE_URL."""
    message_text: str
    """The text to show, rendered."""
    fallback_used: bool
    """True if `message_text` is the fallback text."""
    attempt_count: int
    """Number of this attempt in its round, from 1."""
    trace_id: str = ""
    round: int = 0
    """Number of replays so far. The retries of one round are the same message; a replay is a new message."""
    message_uid: str | None = None
    """UUID of the message; None for a record of an earlier version. See `stable_id`."""
    title: str = ""
    kind: str = ""
    key: str = ""
    """The caller's key of the message."""
    content: MessageContent | None = None
    """The other parts of a message of `notify`; None for an event of docs/events.md."""

    def as_payload(self) -> dict[str, Any]:
        """Return the request as the Go service's JSON fields: without our own fields and an empty `trace_id`.

        A message of `notify` has its title, kind, key and content, too.
        """
        payload = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del payload["round"], payload["message_uid"]
        if not self.trace_id:
            del payload["trace_id"]
        own = {name: payload.pop(name) for name in ("title", "kind", "key", "content")}
        return payload if self.content is None else payload | own | {"content": self.content.as_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A user's channel settings. The engine reads them from the database for each send."""

    enabled: bool
    webhook_url: Secret
    """The address: a URL, or an email address. May be blank."""
    auth_type: str
    """One of `AuthType`."""
    bearer_token: Secret
    """The secret of the authentication: a bearer token or a signing secret."""
    user_email: str = ""
    """The email address of the user account; set only if `webhook_url` is blank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """The result of one attempt. No text may contain a secret: the texts are stored, logged and shown."""

    outcome: str
    """One of `Outcome`. Any other value counts as a temporary failure."""
    provider_message_id: str = ""
    error_code: str = ""
    """One of `ErrorCode`, or a code of the provider's own."""
    error_message: str = ""
    request_payload: Any = None
    """The JSON value that was sent, if it differs from the SendRequest."""
    response_payload: Any = None
    """The response as a JSON value, or as text."""
    http_status: int | None = None
    response_excerpt: str = ""
    """The beginning of the response as text."""
    retry_after: float = 0.0
    """Seconds that the endpoint asked us to wait."""
    max_attempts: int | None = None
    """Number of attempts after which this kind of failure is final, if lower than the record's own limit."""
    maybe_delivered: bool = False
    """True if the whole request was sent but no response arrived. The engine adds this to the error text."""
    project_at_fault: bool = False
    """True if the project must correct something, such as its mail settings or its clock. The failure is logged as an
    error, and pauses no channel: its owner could not do anything."""
    holds_endpoint: bool = False
    """True if every message to this endpoint fails in the same way now. The messages are held, and the endpoint is only
    probed. Only for temporary failures."""
    unmapped: str = ""
    """The vendor's error code, if no rule has it. See `notifications.signals.unmapped_answer`."""


class ProviderError(NotificationError):
    """An attempt ended in an exception.

    Args:
        message: Text without secrets.
        result: What the provider knows about the attempt, if anything.
    """

    def __init__(self, message: str, result: SendResult | None = None) -> None:
        super().__init__(message)
        self.result = result


class Provider(Protocol):
    """Sends messages to one kind of endpoint.

    Optional class attributes: `limits`, the rate limit per endpoint ("5/second;100/minute"), and `crowded_half_hours`,
    True if retries must avoid full and half hours.
    """

    channel: ClassVar[str]

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Make one attempt.

        The engine calls this from plain threads, at the same time for several messages. It must not use the database,
        and it must return before TOTAL_TIMEOUT ends.

        Args:
            request: The message.
            endpoint: The user's channel settings, or None if the user has none.

        Returns:
            The result. Every expected failure is a result.

        Raises:
            ProviderError: A failure that reaches the provider as an exception. Any other exception counts as
                `internal_error`, a temporary failure.
        """
        ...


@runtime_checkable
class ChannelRules(Protocol):
    """Optional part of a provider: the rules by which the admin form and the API refuse settings of a channel.

    A problem is a text marked with `gettext_noop`, or an empty string.
    """

    auth_types: ClassVar[tuple[AuthType, ...]]
    """The accepted kinds of authentication."""
    address_optional: ClassVar[bool]
    """True if the user's own email address is used when the channel has no address."""

    def address_problem(self, url: str) -> str:
        """Return why an address is not accepted, or an empty string."""
        ...

    def secret_problem(self, secret: str) -> str:
        """Return why a token or signing secret is not accepted, or an empty string."""
        ...


@runtime_checkable
class DataRules(Protocol):
    """Optional part of a provider that reads a part of a message's `data`."""

    def data_problem(self, data: Mapping[str, Any]) -> str:
        """Return why the data cannot be used, as a text marked with `gettext_noop`; an empty string if it can."""
        ...


def message_link(request: SendRequest, options: ServiceOptions) -> str:
    """Return the absolute address of a message's link. A message of `notify` may have none.

    Args:
        request: The message.
        options: For `frontend_base_url`.
    """
    if request.content is None or request.target_url.startswith("/"):
        return site_link(options.frontend_base_url, request.target_url)
    return request.target_url


def stable_id(request: SendRequest, options: ServiceOptions) -> uuid.UUID:
    """Return the id by which a receiver recognises a message: the same for each retry, another one for each replay.

    Args:
        request: The message.
        options: Their `frontend_base_url` is part of the id of a record without `message_uid`, so that two
            installations with equal record numbers send different ids.
    """
    if request.message_uid:
        return uuid.uuid5(uuid.UUID(request.message_uid), str(request.round))
    # A record of an earlier version: a retry after the upgrade must keep the id of its earlier attempts.
    site = options.frontend_base_url.rstrip("/")
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{site}/notifications/{request.notification_id}/{request.round}")
