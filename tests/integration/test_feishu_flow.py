"""The Feishu and Lark Flow webhook."""

from __future__ import annotations

import dataclasses
import socket
from datetime import datetime
from typing import Any

import pytest

from notifications.conf import ServiceOptions, service_options
from notifications.providers.base import Provider, attempt_send
from notifications.providers.feishu.flow import FeishuFlowProvider, check_webhook_url
from notifications.providers.http.client import HttpPoster
from notifications.providers.http.ssrf_guard import is_public
from notifications.security.secrets import mask_url
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST, TOKEN, ProviderConformance
from notifications.testing.sandbox.server import Sandbox

KEY = "canary0123456789abcdef0123456789"
PATH = "/flow/api/trigger-webhook/"


class TestFeishuFlowConformance(ProviderConformance):
    """The shared promises, and what is Feishu's own."""

    key = KEY
    path = PATH

    def make(self, options: ServiceOptions) -> Provider:
        return FeishuFlowProvider(options)

    def test_sends_the_fields_that_users_build_their_flows_on(self, sandbox: Sandbox) -> None:
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

    def test_without_a_token_no_authorization_is_sent(self, sandbox: Sandbox) -> None:
        provider = self.make(self.options(sandbox))

        attempt_send(provider, dataclasses.replace(REQUEST, trace_id=""), self.endpoint(sandbox, auth_type="none"))

        [delivery] = sandbox.deliveries()
        assert "authorization" not in {name.lower() for name in delivery.headers}
        assert "trace_id" not in (delivery.body or {})

    def test_http_200_with_a_failure_code_is_no_success(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "code:19001")

        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "provider_config")
        assert "19001" in result.error_message
        assert result.http_status == 200

    def test_a_code_we_have_no_meaning_for_is_tried_a_few_times(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "code:123456")

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "provider_unmapped")
        assert (result.max_attempts, result.unmapped) == (3, "123456")


GOOD = f"https://www.feishu.cn{PATH}{KEY}"


class TestAddress:
    @pytest.mark.parametrize(
        "url", [GOOD, GOOD.replace("www.", ""), GOOD.replace("feishu.cn", "larksuite.com"), f"{GOOD[:-32]}a1b2c3d4-x_y"]
    )
    def test_a_flow_webhook_is_allowed(self, url: str) -> None:
        assert check_webhook_url(url, service_options()) == ""

    @pytest.mark.parametrize(
        "url",
        [
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
        ],
    )
    def test_anything_else_is_refused_with_a_reason(self, url: str) -> None:
        assert check_webhook_url(url, service_options())

    def test_the_sandbox_is_allowed_only_where_the_setting_names_it(self) -> None:
        url = f"http://127.0.0.1:9000{PATH}{KEY}"
        allowed = dataclasses.replace(service_options(), sandbox_origins=("http://127.0.0.1:9000",))

        assert check_webhook_url(url, allowed) == ""
        assert check_webhook_url(url, service_options())
        assert check_webhook_url(url.replace("9000", "9001"), allowed)

    def test_an_address_is_shown_masked(self) -> None:
        assert mask_url(GOOD) == f"https://www.feishu.cn{PATH}cana...6789"


class TestGuard:
    @pytest.mark.parametrize(
        "address",
        [
            *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
            *("198.18.0.1", "192.0.2.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1"),
            *("fc00::1", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1"),
        ],
    )
    def test_inside_addresses_are_not_public(self, address: str) -> None:
        assert not is_public(address)

    @pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111"])
    def test_the_open_internet_is(self, address: str) -> None:
        assert is_public(address)

    def test_a_public_name_that_resolves_to_the_inside_is_not_connected_to(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Sandbox() as canary:
            answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", canary.port))]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: answer)

            result = HttpPoster(service_options()).post(GOOD, b"{}", {})

            assert getattr(result, "error_code", None) == "network_error"
            assert canary.connections == 0
