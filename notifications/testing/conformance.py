"""What every webhook provider has to do, whatever its vendor: subclass ProviderConformance for each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from notifications.conf import ServiceOptions, service_options
from notifications.providers.base import Endpoint, Provider, SendRequest, SendResult, attempt_send
from notifications.providers.http.client import MAX_EXCERPT_LENGTH, MAX_RESPONSE_BYTES
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.testing.sandbox.server import Sandbox

TOKEN = "canary-bearer-token-5e9f"  # noqa: S105  made up

REQUEST = SendRequest(
    notification_id=7,
    user_id=42,
    trigger_id="trg-1",
    preview_id="prv-1",
    trigger_type="important_urgent_task",
    target_type="task_pool",
    target_id=9,
    target_url="/assistant/c-1",
    message_text="写周报改到周四上午\n/assistant/c-1",
    fallback_used=False,
    attempt_count=1,
    trace_id="trace-1",
)


class ProviderConformance:
    """A vendor's class names its key, path and how to make the provider; the promises are here."""

    key: ClassVar[str]
    path: ClassVar[str]
    auth_type: ClassVar[str] = "bearer"
    secret: ClassVar[str] = TOKEN

    def make(self, options: ServiceOptions) -> Provider:
        """Return the provider under test."""
        raise NotImplementedError

    @pytest.fixture
    def sandbox(self) -> Iterator[Sandbox]:
        with Sandbox() as running:
            yield running

    def options(self, sandbox: Sandbox, **changes: object) -> ServiceOptions:
        bounds = {"connect_timeout": 2.0, "read_timeout": 2.0, "total_timeout": 3.0} | changes
        return dataclasses.replace(service_options(), sandbox_origins=(sandbox.origin,), **bounds)  # type: ignore[arg-type]

    def endpoint(self, sandbox: Sandbox, **changes: object) -> Endpoint:
        fields: dict[str, object] = {
            "enabled": True,
            "webhook_url": Secret.of(f"{sandbox.origin}{self.path}{self.key}"),
            "auth_type": self.auth_type,
            "bearer_token": Secret.of(self.secret),
        }
        return Endpoint(**fields | changes)  # type: ignore[arg-type]

    def send(self, sandbox: Sandbox, *answers: str, **bounds: object) -> SendResult:
        sandbox.script(self.key, *answers)
        return attempt_send(self.make(self.options(sandbox, **bounds)), REQUEST, self.endpoint(sandbox))

    def test_ok_is_a_success(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "ok")

        assert (result.outcome, result.error_code, result.http_status) == (Outcome.SUCCESS, "", 200)
        assert len(sandbox.deliveries(key=self.key)) == 1

    @pytest.mark.parametrize(
        ("answer", "outcome", "code"),
        [
            ("status:400", Outcome.PERMANENT_FAIL, "payload_invalid"),
            ("status:401", Outcome.PERMANENT_FAIL, "provider_auth_failed"),
            ("status:403", Outcome.PERMANENT_FAIL, "provider_auth_failed"),
            ("status:404", Outcome.PERMANENT_FAIL, "payload_invalid"),
            ("status:500", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("status:503", Outcome.TEMPORARY_FAIL, "provider_5xx"),
            ("status:429", Outcome.TEMPORARY_FAIL, "provider_rate_limited"),
            ("reset", Outcome.TEMPORARY_FAIL, "network_error"),
            ("garbage", Outcome.SUCCESS, ""),
            ("empty", Outcome.SUCCESS, ""),
            ("redirect", Outcome.PERMANENT_FAIL, "payload_invalid"),
        ],
    )
    def test_each_kind_of_answer_has_its_class(
        self, sandbox: Sandbox, answer: str, outcome: Outcome, code: str
    ) -> None:
        result = self.send(sandbox, answer)

        assert (result.outcome, result.error_code) == (outcome, code)
        assert bool(result.error_message) == (outcome != Outcome.SUCCESS)

    def test_a_throttle_says_when_to_come_back(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "rate-limit:7")

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_rate_limited")
        assert result.retry_after == 7

    def test_a_redirect_is_not_followed(self, sandbox: Sandbox) -> None:
        self.send(sandbox, "redirect")

        assert len(sandbox.deliveries()) == 1

    def test_silence_is_a_timeout(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "hold", read_timeout=0.3)

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
        assert result.maybe_delivered
        assert "the message may have arrived" in result.error_message

    @pytest.mark.parametrize("answer", ["drip", "drip-body"])
    def test_an_answer_in_drips_cannot_outstay_the_deadline(self, sandbox: Sandbox, answer: str) -> None:
        began = time.monotonic()

        result = self.send(sandbox, answer, total_timeout=1.0)

        # Each byte comes well within the read timeout, and all of them would take minutes.
        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
        assert time.monotonic() - began < 30

    def test_a_huge_answer_is_cut(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "huge")

        assert result.outcome == Outcome.SUCCESS
        assert len(result.response_excerpt) <= MAX_EXCERPT_LENGTH
        assert len(str(result.response_payload)) <= MAX_RESPONSE_BYTES

    def test_nobody_listening_is_network_trouble(self, sandbox: Sandbox) -> None:
        provider = self.make(self.options(sandbox))
        sandbox.stop()

        result = attempt_send(provider, REQUEST, self.endpoint(sandbox))

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "network_error")
        assert not result.maybe_delivered
        assert "arrived" not in result.error_message

    def test_connections_are_kept_and_used_again(self, sandbox: Sandbox) -> None:
        provider = self.make(self.options(sandbox))

        for _ in range(5):
            assert attempt_send(provider, REQUEST, self.endpoint(sandbox)).outcome == Outcome.SUCCESS

        assert sandbox.connections == 1

    def test_a_proxy_of_the_environment_reroutes_nothing(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")

        assert self.send(sandbox, "ok").outcome == Outcome.SUCCESS

    @pytest.mark.parametrize(
        "answer", ["ok", "status:500", "reset", "drip", "redirect", "code:19001", "garbage", "echo"]
    )
    def test_no_secret_is_in_any_result(self, sandbox: Sandbox, answer: str) -> None:
        result = self.send(sandbox, answer, total_timeout=1.0)

        assert self.key not in repr(result)
        assert self.secret not in repr(result)

    def test_without_endpoint_nothing_is_sent(self, sandbox: Sandbox) -> None:
        provider = self.make(self.options(sandbox))

        for endpoint in (None, self.endpoint(sandbox, enabled=False), self.endpoint(sandbox, webhook_url=Secret(""))):
            result = attempt_send(provider, REQUEST, endpoint)
            assert (result.outcome, result.error_code) == (Outcome.SKIPPED, "recipient_missing")

        assert sandbox.deliveries() == []

    def test_a_secret_that_cannot_be_read_is_never_sent_as_an_address(self, sandbox: Sandbox) -> None:
        provider = self.make(self.options(sandbox))

        result = attempt_send(provider, REQUEST, self.endpoint(sandbox, webhook_url=Secret("gAAAAnot-ours")))

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_config")
        assert sandbox.deliveries() == []

    def test_an_address_on_the_inside_is_refused_before_any_connection(self, sandbox: Sandbox) -> None:
        provider = self.make(dataclasses.replace(self.options(sandbox), sandbox_origins=()))

        result = attempt_send(provider, REQUEST, self.endpoint(sandbox))

        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "invalid_url")
        assert sandbox.deliveries() == []
