"""One attempt to send a message: the guarded call of a provider, and the normalized result without secrets."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from typing import Any

import orjson

from notifications.content.text import trim
from notifications.providers.answer_redaction import redactor
from notifications.providers.base import MAY_HAVE_ARRIVED, Endpoint, Provider, ProviderError, SendRequest, SendResult
from notifications.providers.http.messages import Exchange, HttpProvider, HttpResponse
from notifications.security.address_secrets import secret_parts
from notifications.security.secrets import SecretUnreadable
from notifications.states import ErrorCode, Outcome
from notifications.telemetry.tracing import send_span

FINAL_OUTCOMES = (Outcome.SUCCESS, Outcome.PERMANENT_FAIL, Outcome.SKIPPED)


def attempt_send(provider: Provider, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
    """Call the provider once, inside a trace span, and return a normalized result. Raises nothing.

    Args:
        provider: The provider of the record's channel.
        request: The message.
        endpoint: The user's channel settings, or None if the user has none.

    Returns:
        The provider's result. For an exception: the result of the `ProviderError` with all secrets of the endpoint
        removed, or `internal_error` with only the type of the exception.
    """
    with _span(provider, request) as set_outcome:
        try:
            result = normalize_result(provider.send(request, endpoint))
        except BaseException as error:
            result = _result_of_exception(error, endpoint)
        set_outcome(result.outcome, result.error_code)
    return result


def attempt_exchange(provider: HttpProvider, request: SendRequest, endpoint: Endpoint | None) -> Exchange:
    """Return the exchange of one attempt, which ends with a normalized result and raises nothing.

    Args:
        provider: The provider of the record's channel.
        request: The message.
        endpoint: The user's channel settings, or None if the user has none.

    Returns:
        An exchange that makes the provider's requests. Its result is that of `attempt_send`.
    """
    answers: list[HttpResponse | SendResult] = []
    with _span(provider, request, current=False) as set_outcome:
        try:
            result = normalize_result((yield from _note_answers(provider.exchange(request, endpoint), answers)))
        except GeneratorExit:
            raise
        except BaseException as error:
            arrived = any(isinstance(answer, HttpResponse) or answer.maybe_delivered for answer in answers)
            result = _result_of_exception(error, endpoint, maybe_delivered=arrived)
        set_outcome(result.outcome, result.error_code)
    return result


def _note_answers(exchange: Exchange, answers: list[HttpResponse | SendResult]) -> Exchange:
    """Pass on the requests of an exchange, and keep the answers: what raises afterwards may have sent the message."""
    try:
        request = next(exchange)
        while True:
            answers.append((yield request))
            request = exchange.send(answers[-1])
    except StopIteration as end:
        result: SendResult = end.value
        return result
    finally:
        exchange.close()


def _span(
    provider: Provider | HttpProvider, request: SendRequest, *, current: bool = True
) -> AbstractContextManager[Callable[[str, str], None]]:
    return send_span(
        request.trace_id,
        current=current,
        channel=provider.channel,
        record_id=request.notification_id,
        attempt=request.attempt_count,
    )


def _result_of_exception(
    error: BaseException, endpoint: Endpoint | None, *, maybe_delivered: bool = False
) -> SendResult:
    """Return the result of an attempt that an exception ended. The attempt must be recorded, whatever was raised.

    Raises:
        KeyboardInterrupt: Somebody pressed Ctrl-C.
    """
    if isinstance(error, ProviderError):
        result = normalize_result(error.result or SendResult(outcome=""), str(error))
        return without_secrets(result, *_read_secrets(endpoint))
    if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        raise error
    # Only the type: the text of an unknown exception may contain the address, which is a secret.
    text = f"{type(error).__name__} in the provider"
    return normalize_result(
        SendResult(
            outcome=Outcome.TEMPORARY_FAIL,
            error_code=ErrorCode.INTERNAL_ERROR,
            error_message=text,
            maybe_delivered=maybe_delivered,
        )
    )


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


def without_secrets(result: SendResult, secrets: Collection[str], segments: Collection[str] = ()) -> SendResult:
    """Return the result with the secrets removed from every field that an endpoint's answer can reach.

    Call it after the answer was interpreted: removing a secret first could change the meaning of the answer.

    Args:
        result: The result of an attempt.
        secrets: Tokens and addresses; empty ones are ignored.
        segments: Parts of an address; empty ones are ignored. See `Redactor` for the difference.
    """
    hidden = redactor(tuple(secrets), tuple(segments))
    texts = [result.provider_message_id, result.error_message, result.response_excerpt]
    payload = result.response_payload
    with contextlib.suppress(TypeError):  # what is no text, and what orjson refuses, is looked at value by value
        # A text as it is: it may be cut off within a secret, and JSON would put a quote behind its end.
        texts.append(payload if isinstance(payload, str) else orjson.dumps(payload).decode())
        if all(map(hidden.is_clean, texts)):
            return result
    echoes = ("provider_message_id", "error_message", "response_payload", "response_excerpt")
    return _replace_if_changed(result, **{name: hidden.redact(getattr(result, name)) for name in echoes})


def _replace_if_changed(result: SendResult, **fields: Any) -> SendResult:
    # Nearly every send changes nothing, and comparing costs less than a copy.
    if all(getattr(result, name) == value for name, value in fields.items()):
        return result
    return dataclasses.replace(result, **fields)


def _read_secrets(endpoint: Endpoint | None) -> tuple[list[str], tuple[str, ...]]:
    """Return the address and the tokens, and the secret parts of the address."""
    plain = {"address": "", "tokens": ""}
    for name, secret in (("address", endpoint.webhook_url), ("tokens", endpoint.bearer_token)) if endpoint else ():
        with contextlib.suppress(SecretUnreadable):
            plain[name] = secret.reveal()
    return [plain["address"], *plain["tokens"].split(",")], secret_parts(plain["address"])


def _to_text(value: object) -> str:
    # A provider may return another type for a text. A successful send must not fail because of that.
    return "" if value is None else trim(str(value))
