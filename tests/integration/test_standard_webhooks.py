"""The provider of Standard Webhooks, checked with the specification's own library."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from notifications.conf import ServiceOptions
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Provider
from notifications.providers.standard_webhooks import StandardWebhookProvider
from notifications.security.log_redaction import redact_text
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST, ProviderConformance
from notifications.testing.sandbox.journal import Delivery
from notifications.testing.sandbox.server import Sandbox

KEY = "canary0123456789abcdef0123456789"
SECRET = "whsec_" + base64.b64encode(b"canary-key-of-thirty-two-bytes!!").decode()
OLD = "whsec_" + base64.b64encode(b"an-older-key-of-24-bytes").decode()
GOOD = f"https://hooks.example.com/notify/{KEY}"


def verify(secret: str, delivery: Delivery) -> Any:
    """Return the event if the specification's library accepts the signature."""
    return Webhook(secret).verify(
        json.dumps(delivery.body, ensure_ascii=False, separators=(",", ":")), delivery.headers
    )


class TestWebhookConformance(ProviderConformance):
    """The promises of every webhook provider, and those of the specification."""

    key = KEY
    path = "/webhook/"
    auth_type = "signature"
    secret = SECRET

    def make(self, options: ServiceOptions) -> Provider:
        return StandardWebhookProvider(options)

    def test_the_specifications_library_accepts_the_signature(self, sandbox: Sandbox) -> None:
        sandbox.sign(KEY, SECRET)

        assert self.send(sandbox, "ok").outcome == Outcome.SUCCESS

        [delivery] = sandbox.deliveries()
        event = verify(SECRET, delivery)
        assert event["type"] == "smartmate.schedule_adjustment_ready"
        assert event["data"]["message"]["summary"] == REQUEST.message_text
        assert event["data"]["notification_id"] == 7

    def test_it_refuses_another_secret_and_another_body(self, sandbox: Sandbox) -> None:
        self.send(sandbox, "ok")
        [delivery] = sandbox.deliveries()

        with pytest.raises(WebhookVerificationError):
            verify(OLD, delivery)
        with pytest.raises(WebhookVerificationError):
            verify(SECRET, dataclasses.replace(delivery, body=delivery.body | {"type": "other"}))

    def test_during_a_rotation_both_secrets_are_valid(self, sandbox: Sandbox) -> None:
        endpoint = self.endpoint(sandbox, bearer_token=Secret.of(f"{SECRET},{OLD}"))

        result = attempt_send(self.make(self.options(sandbox)), REQUEST, endpoint)

        [delivery] = sandbox.deliveries()
        assert len(delivery.headers["webhook-signature"].split()) == 2
        assert verify(SECRET, delivery) == verify(OLD, delivery)
        assert SECRET not in repr(result)
        assert OLD not in repr(result)

    def test_a_receiver_with_another_secret_refuses(self, sandbox: Sandbox) -> None:
        sandbox.sign(KEY, OLD)

        result = self.send(sandbox, "ok")

        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "provider_auth_failed")

    def test_a_retry_has_the_same_id_and_is_detected_as_a_repeat(self, sandbox: Sandbox) -> None:
        self.send(sandbox, "hold", read_timeout=0.3)
        self.send(sandbox, "ok")

        first, second = sandbox.deliveries()
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert [first.accepted, second.accepted] == [True, False]

    def test_http_410_means_that_the_address_is_wrong(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "status:410")

        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "provider_config")

    def test_nothing_is_sent_without_a_valid_secret(self, sandbox: Sandbox) -> None:
        provider = self.make(self.options(sandbox))
        cases: list[dict[str, object]] = [
            {"auth_type": "none"},
            {"bearer_token": Secret("")},
            {"bearer_token": Secret.of("whsec_short")},
            {"auth_type": "bearer"},
        ]

        for changes in cases:
            result = attempt_send(provider, REQUEST, self.endpoint(sandbox, **changes))
            assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "provider_config"), changes
        assert sandbox.deliveries() == []

    def test_the_number_of_idle_connections_is_bounded(self, sandbox: Sandbox) -> None:
        with Sandbox() as other, Sandbox() as third:
            running = (sandbox, other, third)
            options = dataclasses.replace(
                self.options(sandbox), sandbox_origins=tuple(receiver.origin for receiver in running), send_slots=2
            )
            provider = self.make(options)

            for receiver in (*running, *running):
                assert attempt_send(provider, REQUEST, self.endpoint(receiver)).outcome == Outcome.SUCCESS

            # Two stay open. So each host found its connection closed, because it was used longest ago.
            assert [receiver.connections for receiver in running] == [2, 2, 2]


class TestSecret:
    def test_secrets_of_the_specification_are_accepted(self) -> None:
        secrets = [SECRET, f"{SECRET},{OLD}", SECRET.removeprefix("whsec_")]

        assert [secret for secret in secrets if StandardWebhookProvider().secret_problem(secret)] == []

    def test_other_secrets_are_refused_with_a_reason(self) -> None:
        secrets = ["", "secret", "whsec_", "whsec_AAAA", f"{SECRET},", f"{SECRET},x", SECRET * 3, "ключ"]

        problems = {secret: StandardWebhookProvider().secret_problem(secret) for secret in secrets}
        assert [secret for secret, problem in problems.items() if "Base64" not in problem] == []

    def test_secrets_are_removed_from_log_texts(self) -> None:
        assert redact_text(f"{{'key': '{SECRET},{OLD}'}}") == "{'key': 'whsec_********,whsec_********'}"


class TestAddress:
    def test_any_host_name_is_accepted(self) -> None:
        urls = [
            GOOD,
            f"{GOOD}?team=1",
            "https://example.com",
            "https://a-b.example.com:8443/x/y",
            "https://xn--fiqs8s.xn--fiqs8s/",
        ]

        assert [url for url in urls if StandardWebhookProvider().address_problem(url)] == []

    def test_other_addresses_are_refused_with_a_reason(self) -> None:
        urls = [
            "",
            GOOD.replace("https", "http"),
            GOOD.replace("https", "ftp"),
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://2130706433/x",
            "https://0x7f.1/x",
            "https://127.1/x",
            "https://localhost/x",
            "https://user@example.com/x",
            "https://example.com@evil.example/x",
            "https://example.com\\@evil.example/x",
            "https://EXAMPLE.com/x",
            "https://exam ple.com/x",
            "https://example.com:/x",
            "https://example.com:0/x",
            "https://example.com:x/x",
            "https://example..com/x",
            "https://-example.com/x",
            "https://example.com./x",
            "https://éxample.com/x",
            f"{GOOD}#part",
            f"{GOOD}\n",
        ]

        assert [url for url in urls if not StandardWebhookProvider().address_problem(url)] == []

    def test_a_name_that_resolves_to_a_private_address_is_not_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lookup = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 443))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: lookup)

        provider = StandardWebhookProvider()
        result = provider.poster.run(provider.deliver(REQUEST, GOOD, SECRET))

        assert result.error_message == "the host resolves to an address that is not public"
