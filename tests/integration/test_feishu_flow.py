"""The provider of Feishu and Lark Flow webhooks."""

from __future__ import annotations

import dataclasses
import socket
from datetime import datetime
from typing import Any

import pytest

from notifications.conf import ServiceOptions, service_options
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Provider
from notifications.providers.feishu.flow import FeishuFlowProvider, check_webhook_url
from notifications.providers.http.client import HttpPoster
from notifications.security.address_secrets import mask_url
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST, TOKEN, ProviderConformance
from notifications.testing.sandbox.server import Sandbox

KEY = "canary0123456789abcdef0123456789"
PATH = "/flow/api/trigger-webhook/"


class TestFeishuFlowConformance(ProviderConformance):
    """The promises of every webhook provider, and those of Flow webhooks."""

    key = KEY
    path = PATH

    def make(self, options: ServiceOptions) -> Provider:
        return FeishuFlowProvider(options)

    def test_the_request_has_the_documented_fields(self, sandbox: Sandbox) -> None:
        self.send(sandbox, "ok")

        [delivery] = sandbox.deliveries()
        body: dict[str, Any] = dict(delivery.body or {})
        sent_at = body.pop("sent_at")
        assert datetime.fromisoformat(sent_at).tzinfo is not None
        assert body == {
            "event": "smartmate.schedule_adjustment_ready",
            "version": "1",
            "notification_id": 7,
            "user_id": 42,
            "preview_id": "prv-1",
            "trigger_id": "trg-1",
            "trigger_type": "meeting_moved",
            "target_type": "meeting",
            "target_id": 9,
            "message": {
                "title": "SmartMate 日程调整建议",
                "summary": "会议改到周四 14:00\nMeeting moved to Thursday",
                "action_text": "查看并确认调整",
                "action_url": "https://app.example.com/meetings/9",
            },
            "trace_id": "trace-1",
        }
        headers = {name.lower(): value for name, value in delivery.headers.items()}
        assert headers["authorization"] == f"Bearer {TOKEN}"
        assert headers["content-type"] == "application/json; charset=utf-8"

    def test_without_a_token_there_is_no_authorization_header(self, sandbox: Sandbox) -> None:
        provider = self.make(self.options(sandbox))

        attempt_send(provider, dataclasses.replace(REQUEST, trace_id=""), self.endpoint(sandbox, auth_type="none"))

        [delivery] = sandbox.deliveries()
        assert "authorization" not in {name.lower() for name in delivery.headers}
        assert "trace_id" not in (delivery.body or {})

    def test_http_200_with_an_error_code_is_a_failure(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "code:19001")

        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "provider_config")
        assert "19001" in result.error_message
        assert result.http_status == 200

    def test_a_code_without_a_rule_is_retried_at_most_three_times(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "code:123456")

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_unmapped")
        assert (result.max_attempts, result.unmapped) == (3, "123456")


GOOD = f"https://www.feishu.cn{PATH}{KEY}"


class TestAddress:
    def test_flow_webhooks_are_accepted(self) -> None:
        urls = [GOOD, GOOD.replace("www.", ""), GOOD.replace("feishu.cn", "larksuite.com"), f"{GOOD[:-32]}a1b2c3d4-x_y"]

        assert [url for url in urls if check_webhook_url(url, service_options())] == []

    def test_other_addresses_are_refused_with_a_reason(self) -> None:
        urls = [
            "",
            "not an address",
            GOOD.replace("https", "http"),
            GOOD.replace("https", "HTTPS "),
            GOOD.replace("https", "ftp"),
            GOOD.replace("www.feishu.cn", "evil.example"),
            GOOD.replace("www.feishu.cn", "www.feishu.cn.evil.example"),
            GOOD.replace("www.feishu.cn", "wwwxfeishu.cn"),
            GOOD.replace("www.feishu.cn", "open.feishu.cn"),
            GOOD.replace("www.feishu.cn", "www.feishu.cn:8443"),
            GOOD.replace("www.feishu.cn", "user@www.feishu.cn"),
            GOOD.replace("www.feishu.cn", "user:pw@www.feishu.cn"),
            GOOD.replace("www.feishu.cn", "evil.example\\@www.feishu.cn"),
            GOOD.replace("www.feishu.cn", "www.feishu.cn@evil.example"),
            GOOD.replace("www.feishu.cn", "www.feіshu.cn"),
            GOOD.replace("www.feishu.cn", "www.feishu。cn"),
            GOOD.replace("www.feishu.cn", "127.0.0.1"),
            GOOD.replace("www.feishu.cn", "[::1]"),
            GOOD.replace("www.feishu.cn", "[broken"),
            GOOD + "?a=b",
            GOOD + "?",
            GOOD + "#a",
            GOOD + "#",
            GOOD + "/more",
            GOOD + "\n",
            GOOD + "\x00",
            " " + GOOD,
            GOOD.replace("/flow/", "/flow/../flow/"),
            GOOD.replace("/flow/api", "/open-apis/bot/v2/hook"),
            f"https://www.feishu.cn{PATH}",
            f"https://www.feishu.cn{PATH}%2e%2e/{KEY}",
        ]

        assert [url for url in urls if not check_webhook_url(url, service_options())] == []

    def test_a_sandbox_is_accepted_only_if_sandbox_origins_lists_it(self) -> None:
        url = f"http://127.0.0.1:9000{PATH}{KEY}"
        allowed = dataclasses.replace(service_options(), sandbox_origins=("http://127.0.0.1:9000",))

        assert check_webhook_url(url, allowed) == ""
        assert check_webhook_url(url, service_options())
        assert check_webhook_url(url.replace("9000", "9001"), allowed)

    def test_a_masked_address_hides_the_key(self) -> None:
        assert mask_url(GOOD) == f"https://www.feishu.cn{PATH}cana...6789"


class TestResolvedAddress:
    def test_a_name_that_resolves_to_a_private_address_is_not_called(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Sandbox() as sandbox:
            lookup = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", sandbox.port))]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: lookup)

            result = HttpPoster(service_options()).post(GOOD, b"{}", {})

            assert getattr(result, "error_code", None) == "network_error"
            assert sandbox.connections == 0
