"""Tests that every webhook provider must pass, whatever its vendor. Subclass `ProviderConformance` for each provider.

The tests run with pytest and pytest-django. They start a `Sandbox` and use neither the database nor the internet. List
`notifications.testing.plugin` in `pytest_plugins`, so that failed assertions show their values.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, cast

import pytest
from cryptography.fernet import Fernet
from django.conf import settings
from django.test import override_settings

from notifications.conf import ServiceOptions, service_options
from notifications.providers.attempt import attempt_send
from notifications.providers.base import MAY_HAVE_ARRIVED, Endpoint, Provider, SendRequest, SendResult
from notifications.providers.http.messages import MAX_EXCERPT_LENGTH, HttpProvider
from notifications.providers.http.response_reader import MAX_RESPONSE_BYTES
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.testing.sandbox.server import Sandbox

TOKEN = "canary-bearer-token-5e9f"  # noqa: S105  made up

REQUEST = SendRequest(
    notification_id=7,
    user_id=42,
    trigger_id="trg-1",
    preview_id="prv-1",
    trigger_type="meeting_moved",
    target_type="meeting",
    target_id=9,
    target_url="/meetings/9",
    message_text="会议改到周四 14:00\nMeeting moved to Thursday",
    fallback_used=False,
    attempt_count=1,
    trace_id="trace-1",
)
"""The message that the tests send: two lines, not only ASCII."""

EXPECTED_RESULTS: Mapping[str, tuple[str, str]] = {
    "status:400": (Outcome.PERMANENT_FAIL, "payload_invalid"),
    "status:401": (Outcome.PERMANENT_FAIL, "provider_auth_failed"),
    "status:403": (Outcome.PERMANENT_FAIL, "provider_auth_failed"),
    "status:404": (Outcome.PERMANENT_FAIL, "payload_invalid"),
    "status:500": (Outcome.TEMPORARY_FAIL, "provider_5xx"),
    "status:503": (Outcome.TEMPORARY_FAIL, "provider_5xx"),
    "status:429": (Outcome.TEMPORARY_FAIL, "provider_rate_limited"),
    "reset": (Outcome.TEMPORARY_FAIL, "network_error"),
    "garbage": (Outcome.SUCCESS, ""),
    "empty": (Outcome.SUCCESS, ""),
    "redirect": (Outcome.PERMANENT_FAIL, "payload_invalid"),
}
"""Outcome and error code by the sandbox's answer word, for providers that use STATUS_RULES."""
ECHOING_ANSWERS = ("ok", "status:500", "reset", "drip", "redirect", "code:19001", "garbage", "echo")
"""Answer words after which no secret may be in the result."""
_DRIP_TEST_SECONDS = 30.0


class ProviderConformance:
    """The promises of a webhook provider. A subclass sets `key` and `path` and implements `make`.

    Example:
        class TestPager(ProviderConformance):
            key = "canary0123456789"
            path = "/webhook/"

            def make(self, options):
                return PagerProvider(options)
    """

    key: ClassVar[str]
    """Last part of the address. Use a text that occurs nowhere else, because the tests search for it in results."""
    path: ClassVar[str]
    """Path of the address before the key: one that the provider accepts and the sandbox serves.

    The sandbox serves /flow/api/trigger-webhook/, /open-apis/bot/v2/hook/, /base/automation/webhook/event/ and
    /webhook/.
    """
    auth_type: ClassVar[str] = "bearer"
    """Authentication of the channel, one of the provider's `auth_types`."""
    secret: ClassVar[str] = TOKEN
    """The channel's token or signing secret."""
    expected_results: ClassVar[Mapping[str, tuple[str, str]]] = EXPECTED_RESULTS
    """Outcome and error code by answer word. Override the entries to which the vendor gives another meaning."""

    def make(self, options: ServiceOptions) -> Provider:
        """Return the provider under test.

        Args:
            options: The options it must use: short timeouts, and the sandbox as an accepted origin.
        """
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def encryption_key(self) -> Iterator[None]:
        """Set ENCRYPTION_KEYS for the test if the project's test settings have none."""
        if service_options().encryption_keys:
            yield
            return
        raw = getattr(settings, "NOTIFICATIONS", {})
        with override_settings(NOTIFICATIONS=raw | {"ENCRYPTION_KEYS": [Fernet.generate_key().decode()]}):
            yield

    @pytest.fixture
    def sandbox(self) -> Iterator[Sandbox]:
        """Run a sandbox."""
        with Sandbox() as running:
            yield running

    def options(self, sandbox: Sandbox, **changes: Any) -> ServiceOptions:
        """Return the project's options with short timeouts, for this sandbox.

        Args:
            sandbox: The receiver.
            **changes: Options to change, by their lower-case names.
        """
        bounds = {"connect_timeout": 2.0, "read_timeout": 2.0, "total_timeout": 3.0} | changes
        return dataclasses.replace(service_options(), sandbox_origins=(sandbox.origin,), **bounds)

    def endpoint(self, sandbox: Sandbox, **changes: Any) -> Endpoint:
        """Return channel settings that lead to the sandbox.

        Args:
            sandbox: The receiver.
            **changes: Fields of `Endpoint` to change.
        """
        fields: dict[str, Any] = {
            "enabled": True,
            "webhook_url": Secret.of(f"{sandbox.origin}{self.path}{self.key}"),
            "auth_type": self.auth_type,
            "bearer_token": Secret.of(self.secret),
        }
        return Endpoint(**fields | changes)

    def send(self, sandbox: Sandbox, *answers: str, request: SendRequest = REQUEST, **changes: Any) -> SendResult:
        """Send a message once and return the result.

        Args:
            sandbox: The receiver.
            *answers: The sandbox's answer words (`Sandbox.script`).
            request: The message.
            **changes: Options to change.
        """
        sandbox.script(self.key, *answers)
        return attempt_send(self.make(self.options(sandbox, **changes)), request, self.endpoint(sandbox))

    def send_each(self, sandbox: Sandbox, answers: Iterable[str], **changes: Any) -> dict[str, SendResult]:
        """Send another message for each answer and return the results by answer.

        The messages differ, because an idempotent receiver answers a repeated message without using its script.

        Args:
            sandbox: The receiver.
            answers: Answer words.
            **changes: Options to change.
        """
        return {
            answer: self.send(sandbox, answer, request=dataclasses.replace(REQUEST, notification_id=number), **changes)
            for number, answer in enumerate(answers, start=1)
        }

    def test_an_accepted_message_is_a_success(self, sandbox: Sandbox) -> None:
        """One request is sent, and HTTP 200 is a success."""
        result = self.send(sandbox, "ok")

        assert (result.outcome, result.error_code, result.http_status) == (Outcome.SUCCESS, "", 200)
        assert len(sandbox.deliveries(key=self.key)) == 1

    def test_each_answer_has_the_expected_result(self, sandbox: Sandbox) -> None:
        """Each answer of `expected_results` has its outcome and code; each failure has an error text."""
        results = self.send_each(sandbox, self.expected_results)

        codes = {answer: (result.outcome, result.error_code) for answer, result in results.items()}
        assert codes == dict(self.expected_results)
        assert [delivery.answer for delivery in sandbox.deliveries()] == list(self.expected_results)
        with_text = {answer for answer, result in results.items() if result.error_message}
        assert with_text == {answer for answer, result in results.items() if result.outcome != Outcome.SUCCESS}

    def test_an_exchange_needs_no_network(self, sandbox: Sandbox) -> None:
        """A provider without I/O asks for a request, and ends with the failure that it gets instead of an answer."""
        provider = self.make(self.options(sandbox))
        if getattr(provider, "blocks", True):
            pytest.skip("it does I/O of its own")
        exchange = cast("HttpProvider", provider).exchange(REQUEST, self.endpoint(sandbox))

        request = next(exchange)
        failed = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="network_error", maybe_delivered=True)
        with pytest.raises(StopIteration) as end:
            exchange.send(failed)

        assert request.url.startswith(sandbox.origin)
        assert json.loads(request.body)
        assert (end.value.value.outcome, end.value.value.maybe_delivered) == (Outcome.TEMPORARY_FAIL, True)
        assert sandbox.connections == 0

    def test_the_retry_time_of_a_rate_limit_is_kept(self, sandbox: Sandbox) -> None:
        """`retry_after` is the time that the endpoint asked for."""
        result = self.send(sandbox, "rate-limit:7")

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_rate_limited")
        assert result.retry_after == 7

    def test_redirects_are_not_followed(self, sandbox: Sandbox) -> None:
        """A redirect causes no second request."""
        self.send(sandbox, "redirect")

        assert len(sandbox.deliveries()) == 1

    def test_no_response_is_a_timeout_and_maybe_delivered(self, sandbox: Sandbox) -> None:
        """READ_TIMEOUT bounds the wait, and the error says that the message may have arrived."""
        result = self.send(sandbox, "hold", read_timeout=0.3)

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
        assert result.maybe_delivered
        assert MAY_HAVE_ARRIVED in result.error_message

    def test_total_timeout_bounds_a_slow_response(self, sandbox: Sandbox) -> None:
        """A response that sends one byte per READ_TIMEOUT, in its head or its body, ends after TOTAL_TIMEOUT."""
        for answer in ("drip", "drip-body"):
            started_at = time.monotonic()

            result = self.send(sandbox, answer, total_timeout=1.0)

            # The sandbox needs ten minutes for all bytes.
            assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout"), answer
            assert time.monotonic() - started_at < _DRIP_TEST_SECONDS, answer

    def test_a_large_response_is_truncated(self, sandbox: Sandbox) -> None:
        """Not more than MAX_RESPONSE_BYTES are read and MAX_EXCERPT_LENGTH characters are kept."""
        result = self.send(sandbox, "huge")

        assert result.outcome == Outcome.SUCCESS
        assert len(result.response_excerpt) <= MAX_EXCERPT_LENGTH
        assert len(str(result.response_payload)) <= MAX_RESPONSE_BYTES

    def test_a_refused_connection_is_a_network_error(self, sandbox: Sandbox) -> None:
        """The failure is temporary, and the message cannot have arrived."""
        provider = self.make(self.options(sandbox))
        sandbox.stop()

        result = attempt_send(provider, REQUEST, self.endpoint(sandbox))

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "network_error")
        assert not result.maybe_delivered
        assert MAY_HAVE_ARRIVED not in result.error_message

    def test_connections_are_reused(self, sandbox: Sandbox) -> None:
        """Several messages use one connection."""
        provider = self.make(self.options(sandbox))

        for _ in range(5):
            assert attempt_send(provider, REQUEST, self.endpoint(sandbox)).outcome == Outcome.SUCCESS

        assert sandbox.connections == 1

    def test_proxy_variables_of_the_environment_are_ignored(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No proxy receives the message."""
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")

        assert self.send(sandbox, "ok").outcome == Outcome.SUCCESS

    def test_no_secret_is_in_any_result(self, sandbox: Sandbox) -> None:
        """Neither the key of the address nor the secret is in a result, also if the endpoint echoes them."""
        results = self.send_each(sandbox, ECHOING_ANSWERS, total_timeout=1.0)

        texts = {answer: repr(result) for answer, result in results.items()}
        assert [answer for answer, text in texts.items() if self.key in text or self.secret in text] == []
        assert [delivery.answer for delivery in sandbox.deliveries()] == list(ECHOING_ANSWERS)

    def test_a_missing_or_disabled_channel_is_skipped(self, sandbox: Sandbox) -> None:
        """Without an endpoint, with a disabled one, or without an address, nothing is sent."""
        provider = self.make(self.options(sandbox))

        for endpoint in (None, self.endpoint(sandbox, enabled=False), self.endpoint(sandbox, webhook_url=Secret(""))):
            result = attempt_send(provider, REQUEST, endpoint)
            assert (result.outcome, result.error_code) == (Outcome.SKIPPED, "recipient_missing"), endpoint

        assert sandbox.deliveries() == []

    def test_an_unreadable_secret_is_a_temporary_failure(self, sandbox: Sandbox) -> None:
        """Ciphertext that no key decrypts is never used as an address."""
        provider = self.make(self.options(sandbox))

        result = attempt_send(provider, REQUEST, self.endpoint(sandbox, webhook_url=Secret("gAAAAnot-ours")))

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_config")
        assert sandbox.deliveries() == []

    def test_a_private_address_is_refused_before_connecting(self, sandbox: Sandbox) -> None:
        """Without SANDBOX_ORIGINS, the sandbox's own address is refused and not called."""
        provider = self.make(dataclasses.replace(self.options(sandbox), sandbox_origins=()))

        result = attempt_send(provider, REQUEST, self.endpoint(sandbox))

        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "invalid_url")
        assert sandbox.deliveries() == []
