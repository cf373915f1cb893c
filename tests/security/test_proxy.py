"""A network where only an HTTP proxy leads out: what goes through it, and what the address guard still refuses."""

from __future__ import annotations

import base64
import dataclasses
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from notifications.conf import ServiceOptions, service_options
from notifications.monitoring.alerting.receivers import configured_receivers
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Endpoint, SendResult
from notifications.providers.feishu.bot import FeishuBotProvider
from notifications.providers.feishu.flow import FeishuFlowProvider
from notifications.providers.http.ssrf_guard import tls_context
from notifications.providers.standard_webhooks import StandardWebhookProvider
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST
from notifications.testing.sandbox.server import Sandbox
from tests.support.certificates import write_certificate
from tests.support.http_proxy import ConnectProxy, TlsReceiver

KEY = "canary0123456789abcdef0123456789"
FLOW = f"https://www.feishu.cn/flow/api/trigger-webhook/{KEY}"
BOT = f"https://open.feishu.cn/open-apis/bot/v2/hook/{KEY}"
HOOK = "https://hooks.example:8443/in?a=1"
PUBLIC = "93.184.215.14"


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsReceiver]:
    """A TLS endpoint whose certificate is valid for three hosts."""
    certificate = write_certificate(tmp_path / "endpoint.pem", "www.feishu.cn", "open.feishu.cn", "hooks.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls_context.cache_clear()
    receiver = TlsReceiver(certificate)
    yield receiver
    receiver.close()
    tls_context.cache_clear()


@pytest.fixture
def proxy(receiver: TlsReceiver) -> Iterator[ConnectProxy]:
    """A proxy that leads to that endpoint."""
    proxy = ConnectProxy(receiver.port)
    yield proxy
    proxy.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What our own resolver knows: no name at first."""
    known: dict[str, list[str]] = {}
    look_up = socket.getaddrinfo

    def getaddrinfo(host: str, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if host[0].isdigit():
            return look_up(host, port, *args, **kwargs)
        if host not in known:
            raise socket.gaierror("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def options_behind(proxy: ConnectProxy, *, user: str = "", **changes: Any) -> ServiceOptions:
    address = f"http://{user}127.0.0.1:{proxy.port}"
    return dataclasses.replace(service_options(), http_proxy=address, sandbox_origins=(), **changes)


def endpoint(url: str, secret: str = "") -> Endpoint:
    kind = "signature" if secret else "none"
    return Endpoint(enabled=True, webhook_url=Secret.of(url), auth_type=kind, bearer_token=Secret.of(secret))


def send_to_hook(options: ServiceOptions, url: str = HOOK) -> SendResult:
    return attempt_send(StandardWebhookProvider(options), REQUEST, endpoint(url, f"whsec_{'A' * 32}"))


def test_messages_of_every_channel_go_through_the_proxy_and_tls_to_the_endpoint(
    receiver: TlsReceiver, proxy: ConnectProxy, names: dict[str, list[str]]
) -> None:
    options = options_behind(proxy)

    results = [
        attempt_send(FeishuFlowProvider(options), REQUEST, endpoint(FLOW)),
        attempt_send(FeishuBotProvider(options), REQUEST, endpoint(BOT)),
        send_to_hook(options),
    ]

    assert [result.outcome for result in results] == [Outcome.SUCCESS] * 3, results
    assert proxy.targets == ["www.feishu.cn:443", "open.feishu.cn:443", "hooks.example:8443"]
    assert len(receiver.bodies) == 3
    assert KEY not in "".join(proxy.requests)


def test_a_connection_through_the_proxy_stays_open(
    receiver: TlsReceiver, proxy: ConnectProxy, names: dict[str, list[str]]
) -> None:
    provider = FeishuFlowProvider(options_behind(proxy))

    for _ in range(3):
        assert attempt_send(provider, REQUEST, endpoint(FLOW)).outcome == Outcome.SUCCESS

    assert len(receiver.bodies) == 3
    assert len(proxy.requests) == 1


def test_the_proxy_gets_its_user_and_password(proxy: ConnectProxy, names: dict[str, list[str]]) -> None:
    options = options_behind(proxy, user="planner:p%40ss@")

    assert send_to_hook(options).outcome == Outcome.SUCCESS

    expected = base64.b64encode(b"planner:p@ss").decode()
    assert f"Proxy-Authorization: Basic {expected}\r\n" in proxy.requests[0]
    assert "p%40ss" not in repr(options)


def test_alerts_go_through_the_proxy(
    receiver: TlsReceiver, proxy: ConnectProxy, names: dict[str, list[str]], change: Callable[..., None]
) -> None:
    change(HTTP_PROXY=f"http://127.0.0.1:{proxy.port}", ALERT_FEISHU_WEBHOOK=BOT)

    configured_receivers()["feishu"]("subject", "the alert")

    assert proxy.targets == ["open.feishu.cn:443"]
    assert "the alert" in receiver.bodies[0]["content"]["text"]


def test_a_name_that_our_resolver_knows_to_be_private_is_not_asked_for(
    proxy: ConnectProxy, names: dict[str, list[str]]
) -> None:
    refused = {
        "private": ["10.0.0.5"],
        "loopback": ["127.0.0.1"],
        "metadata": ["169.254.169.254"],
        "one of two": [PUBLIC, "10.0.0.5"],
    }
    for case, addresses in refused.items():
        names["hooks.example"] = addresses
        result = send_to_hook(options_behind(proxy))
        assert "not public" in result.error_message, case
    assert proxy.requests == []

    names["hooks.example"] = [PUBLIC]
    assert send_to_hook(options_behind(proxy)).outcome == Outcome.SUCCESS


def test_a_number_is_refused_as_without_a_proxy(proxy: ConnectProxy) -> None:
    for host in ("10.0.0.5", "127.1", "0x7f.1", "[::1]", "2130706433"):
        assert send_to_hook(options_behind(proxy), f"https://{host}/in").outcome != Outcome.SUCCESS, host

    assert proxy.requests == []


def test_an_answer_that_refuses_the_tunnel_is_a_temporary_failure_with_its_status(
    receiver: TlsReceiver, proxy: ConnectProxy, names: dict[str, list[str]]
) -> None:
    for status in ("403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"):
        proxy.answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
        result = send_to_hook(options_behind(proxy, user="planner:canary@"))
        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, "network_error"), status
        assert result.error_message == f"the HTTP proxy refused the connection (status {status[:3]})"
    assert receiver.bodies == []


def test_a_proxy_that_does_not_answer_or_is_away_is_a_temporary_failure(
    proxy: ConnectProxy, names: dict[str, list[str]]
) -> None:
    proxy.answer = None
    silent = send_to_hook(options_behind(proxy, connect_timeout=0.2))
    proxy.answer = b"nonsense\r\n\r\n"
    nonsense = send_to_hook(options_behind(proxy))
    proxy.close()
    away = send_to_hook(options_behind(proxy))

    assert (silent.outcome, silent.error_code) == (Outcome.TEMPORARY_FAIL, "provider_timeout")
    assert (nonsense.outcome, nonsense.error_code) == (Outcome.TEMPORARY_FAIL, "network_error")
    assert (away.outcome, away.error_code) == (Outcome.TEMPORARY_FAIL, "network_error")
    assert not any("may have arrived" in result.error_message for result in (silent, nonsense, away))


def test_the_endpoint_must_prove_its_name_through_the_proxy(
    receiver: TlsReceiver, proxy: ConnectProxy, names: dict[str, list[str]]
) -> None:
    result = send_to_hook(options_behind(proxy), "https://other.example/in")

    assert (result.outcome, result.error_message) == (Outcome.TEMPORARY_FAIL, "TLS failed")
    assert proxy.targets == ["other.example:443"]
    assert receiver.bodies == []


def test_hosts_of_the_own_network_are_not_asked_for(proxy: ConnectProxy, names: dict[str, list[str]]) -> None:
    names["feishu.corp.example"] = ["127.0.0.1"]
    with Sandbox() as sandbox:
        options = dataclasses.replace(
            options_behind(proxy, feishu_hosts=("feishu.corp.example:1",)), sandbox_origins=(sandbox.origin,)
        )
        url = f"{sandbox.origin}/flow/api/trigger-webhook/{KEY}"
        assert attempt_send(FeishuFlowProvider(options), REQUEST, endpoint(url)).outcome == Outcome.SUCCESS
        named = FLOW.replace("www.feishu.cn", "feishu.corp.example:1")
        assert attempt_send(FeishuFlowProvider(options), REQUEST, endpoint(named)).error_code == "network_error"

    assert proxy.requests == []
