"""One attempt to send a message: the guarded call of a provider, and the normalized result without secrets."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from notifications.content.text import trim
from notifications.providers.answer_redaction import redact_secrets
from notifications.providers.base import MAY_HAVE_ARRIVED, Endpoint, Provider, ProviderError, SendRequest, SendResult
from notifications.security.secrets import SecretUnreadable
from notifications.states import ErrorCode, Outcome
from notifications.telemetry.tracing import send_span

FINAL_OUTCOMES = (Outcome.SUCCESS, Outcome.PERMANENT_FAIL, Outcome.SKIPPED)


def attempt_send(provider: Provider, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
    """Call the provider once, inside a trace span, and return a normalized result. Never raises an Exception.

    Args:
        provider: The provider of the record's channel.
        request: The message.
        endpoint: The user's channel settings, or None if the user has none.

    Returns:
        The provider's result. For an exception: the result of the `ProviderError` with all secrets of the endpoint
        removed, or `internal_error` with only the type of the exception.
    """
    with send_span(
        request.trace_id,
        channel=provider.channel,
        record_id=request.notification_id,
        attempt=request.attempt_count,
    ) as set_outcome:
        result = _attempt_send(provider, request, endpoint)
        set_outcome(result.outcome, result.error_code)
    return result


def _attempt_send(provider: Provider, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
    try:
        return normalize_result(provider.send(request, endpoint))
    except ProviderError as error:
        result = normalize_result(error.result or SendResult(outcome=""), str(error))
        return without_secrets(result, _read_secrets(endpoint))
    except Exception as error:
        # Only the type: the text of an unknown exception may contain the address, which is a secret.
        text = f"{type(error).__name__} in the provider"
        return SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code=ErrorCode.INTERNAL_ERROR, error_message=text)


def normalize_result(result: SendResult, error_text: str = "") -> SendResult:
    """Return the result with trimmed texts and default values.

    An empty outcome becomes a temporary failure with the code `network_error`. An unknown outcome becomes a temporary
    failure and keeps the provider's code. (In the Go service, the text of an exception replaced the code.)

    Args:
        result: The provider's result.
        error_text: Text of an exception; used if the result has no message.
    """
    outcome = result.outcome if result.outcome in FINAL_OUTCOMES else Outcome.TEMPORARY_FAIL
    code = _to_text(result.error_code)
    if not result.outcome and not code:
        code = ErrorCode.NETWORK_ERROR
    message = _to_text(result.error_message) or ("" if outcome == Outcome.SKIPPED else trim(error_text))
    if result.maybe_delivered and MAY_HAVE_ARRIVED not in message:
        message = f"{message}; {MAY_HAVE_ARRIVED}" if message else MAY_HAVE_ARRIVED
    return _replace_if_changed(
        result,
        outcome=outcome,
        error_code=code,
        error_message=message,
        provider_message_id=_to_text(result.provider_message_id),
    )


def without_secrets(result: SendResult, secrets: Collection[str]) -> SendResult:
    """Return the result with the secrets removed from every field that an endpoint's answer can reach.

    Call it after the answer was interpreted: removing a secret first could change the meaning of the answer.

    Args:
        result: The result of an attempt.
        secrets: Plain secrets; empty ones are ignored.
    """
    echoes = ("provider_message_id", "error_message", "response_payload", "response_excerpt")
    return _replace_if_changed(result, **{name: redact_secrets(getattr(result, name), secrets) for name in echoes})


def _replace_if_changed(result: SendResult, **fields: Any) -> SendResult:
    # Nearly every send changes nothing, and comparing costs less than a copy.
    if all(getattr(result, name) == value for name, value in fields.items()):
        return result
    return dataclasses.replace(result, **fields)


def _read_secrets(endpoint: Endpoint | None) -> list[str]:
    """Return the token, the address, and the last part of the address, which is its key."""
    secrets: list[str] = []
    for secret in (endpoint.webhook_url, endpoint.bearer_token) if endpoint else ():
        try:
            plain = secret.reveal()
        except SecretUnreadable:
            continue
        secrets += [plain, plain.rstrip("/").rpartition("/")[2]]
    return secrets


def _to_text(value: object) -> str:
    # A provider may return another type for a text. A successful send must not fail because of that.
    return "" if value is None else trim(str(value))
