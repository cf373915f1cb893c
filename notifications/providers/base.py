"""What a provider is given, what it answers, and how odd answers are read."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from notifications.conf import ServiceOptions
from notifications.content.text import trim
from notifications.providers.answer_redaction import redact_secrets
from notifications.security.secrets import Secret, SecretUnreadable
from notifications.states import AuthType, ErrorCode, Outcome
from notifications.telemetry.tracing import sending

CERTAIN = (Outcome.SUCCESS, Outcome.PERMANENT_FAIL, Outcome.SKIPPED)
MAY_HAVE_ARRIVED = "the message may have arrived"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRequest:
    """One message for one user, as every provider gets it; the fields are the Go service's, and the round."""

    notification_id: int
    user_id: int
    trigger_id: str
    preview_id: str
    trigger_type: str
    target_type: str
    target_id: int
    target_url: str
    message_text: str
    fallback_used: bool
    attempt_count: int
    trace_id: str = ""
    round: int = 0
    """How often it was replayed: retries of one round are the same message, a replay is another."""

    def as_payload(self) -> dict[str, Any]:
        """Return the request as the Go service's JSON fields; an empty trace_id is left out."""
        payload = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del payload["round"]
        if not self.trace_id:
            del payload["trace_id"]
        return payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A user's settings for the channel, read anew for each send."""

    enabled: bool
    webhook_url: Secret
    auth_type: str
    bearer_token: Secret
    """The secret of the authentication, whichever it is."""
    user_email: str = ""
    """The user's own address; known only where webhook_url is blank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """What came of one attempt. Texts must hold no secret: they are stored, logged and shown."""

    outcome: str
    """One of `Outcome`; anything else is taken as a temporary failure."""
    provider_message_id: str = ""
    error_code: str = ""
    error_message: str = ""
    request_payload: Any = None
    """What was sent, as JSON, if it differs from the SendRequest."""
    response_payload: Any = None
    http_status: int | None = None
    response_excerpt: str = ""
    retry_after: float = 0.0
    """Seconds the provider asked us to wait."""
    max_attempts: int | None = None
    """Attempts after which this kind of failure is final, if fewer than the record's own."""
    maybe_delivered: bool = False
    """The request went out and no answer came back: the message may have arrived. Said in the error text too."""
    unmapped: str = ""
    """The vendor's code that no table of ours has: reported once, see `notifications.signals.unmapped_answer`."""


class ProviderError(Exception):
    """An attempt that ended in an exception, with what is known of it.

    message: free of secrets. result: what the provider could still tell, if anything.
    """

    def __init__(self, message: str, result: SendResult | None = None) -> None:
        super().__init__(message)
        self.result = result


class Provider(Protocol):
    """Takes messages to one kind of endpoint.

    It may also have `limits`, what one endpoint takes ("5/second;100/minute"), and `crowded_half_hours`: retries then
    keep away from full and half hours.
    """

    channel: ClassVar[str]

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Make one attempt. Called from plain threads: never touch the database here.

        endpoint: the user's channel settings, or None when there are none.
        Expected failures are results; `ProviderError` is for what comes as an exception; anything else is a bug.
        """
        ...


@runtime_checkable
class ChannelRules(Protocol):
    """What a provider may also have, so that the admin's form refuses settings which it could not send with.

    Problems are said in words marked with `gettext_noop`, or by an empty string where there is none.
    """

    auth_types: ClassVar[tuple[AuthType, ...]]
    address_optional: ClassVar[bool]
    """Whether the user's own email address does where the channel has none."""

    def address_problem(self, url: str) -> str:
        """Return why this address may not be used."""
        ...

    def secret_problem(self, secret: str) -> str:
        """Return why this token or signing secret cannot be used."""
        ...


def stable_id(request: SendRequest, options: ServiceOptions) -> uuid.UUID:
    """Return the id that a receiver can know the message by: the same for every retry, another for each replay.

    The site's address is in it, so that two installations with the same record numbers do not swallow each other's.
    """
    site = options.frontend_base_url.rstrip("/")
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{site}/notifications/{request.notification_id}/{request.round}")


def attempt_send(provider: Provider, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
    """Call the provider once and return a result in any case; never raises an Exception."""
    with sending(
        request.trace_id,
        channel=provider.channel,
        record_id=request.notification_id,
        attempt=request.attempt_count,
    ) as note:
        result = _attempt(provider, request, endpoint)
        note(result.outcome, result.error_code)
    return result


def _attempt(provider: Provider, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
    try:
        return normalize_result(provider.send(request, endpoint))
    except ProviderError as error:
        result = normalize_result(error.result or SendResult(outcome=""), str(error))
        return without_secrets(result, _secrets_of(endpoint))
    except Exception as error:
        # Only the type: the text of a foreign exception may hold the address, which is a credential.
        text = f"{type(error).__name__} in the provider"
        return SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code=ErrorCode.INTERNAL_ERROR, error_message=text)


def normalize_result(result: SendResult, error_text: str = "") -> SendResult:
    """Return the result with blanks trimmed and gaps filled.

    No outcome at all is a temporary network failure; an outcome we do not know is a temporary failure with the
    provider's own code. The text of an exception fills a blank message and never hides a code (the Go service's did).
    """
    outcome = result.outcome if result.outcome in CERTAIN else Outcome.TEMPORARY_FAIL
    code = _text(result.error_code)
    if not result.outcome and not code:
        code = ErrorCode.NETWORK_ERROR
    message = _text(result.error_message) or ("" if outcome == Outcome.SKIPPED else trim(error_text))
    if result.maybe_delivered and MAY_HAVE_ARRIVED not in message:
        message = f"{message}; {MAY_HAVE_ARRIVED}" if message else MAY_HAVE_ARRIVED
    return _changed(
        result,
        outcome=outcome,
        error_code=code,
        error_message=message,
        provider_message_id=_text(result.provider_message_id),
    )


def without_secrets(result: SendResult, secrets: Collection[str]) -> SendResult:
    """Return the result with the secrets blacked out of everything an endpoint may have echoed.

    To be done when the answer has been judged: blacking out before could change what it means.
    """
    echoes = ("provider_message_id", "error_message", "response_payload", "response_excerpt")
    return _changed(result, **{name: redact_secrets(getattr(result, name), secrets) for name in echoes})


def _changed(result: SendResult, **fields: Any) -> SendResult:
    """Return the result with these fields; the same one where they are what they were, as for nearly every send."""
    if all(getattr(result, name) == value for name, value in fields.items()):
        return result
    return dataclasses.replace(result, **fields)


def _secrets_of(endpoint: Endpoint | None) -> list[str]:
    """Return what must not stand in a text: token, address, and the address's last part, which is its key."""
    found: list[str] = []
    for secret in (endpoint.webhook_url, endpoint.bearer_token) if endpoint else ():
        try:
            plain = secret.reveal()
        except SecretUnreadable:
            continue
        found += [plain, plain.rstrip("/").rpartition("/")[2]]
    return found


def _text(value: object) -> str:
    """Return what a provider put where text belongs as text: an odd type must not undo a proven send."""
    return "" if value is None else trim(str(value))
