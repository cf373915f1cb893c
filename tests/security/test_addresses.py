"""Addresses that must never be called, whether they are stored, resolved or redirected to."""

from __future__ import annotations

import dataclasses
import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
import requests
from django.contrib.auth.models import User
from django.test import Client

from notifications.conf import service_options
from notifications.delivery.engine import Engine
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.monitoring.alerting.receivers import ReceiverError, configured_receivers
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Endpoint, SendResult
from notifications.providers.feishu import flow
from notifications.providers.feishu.base_automation import FeishuBaseProvider
from notifications.providers.feishu.bot import FeishuBotProvider
from notifications.providers.feishu.flow import FeishuFlowProvider, check_webhook_url
from notifications.providers.http import connection
from notifications.providers.http.client import HttpPoster
from notifications.providers.http.messages import HttpResponse
from notifications.providers.http.session import GuardedSession
from notifications.providers.http.ssrf_guard import is_public
from notifications.providers.standard_webhooks import StandardWebhookProvider
from notifications.providers.webhook_base import WebhookProvider
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST
from notifications.testing.sandbox.server import Sandbox
from tests.support.factories import make_record
from tests.support.listeners import LoopbackListener
from tests.support.refused_addresses import GOOD, KEY, PATH, REFUSED

CHANNELS = "/admin/notifications/usernotificationchannel/"
PUBLIC = "93.184.215.14"
LookedUp = list[str]


@pytest.fixture
def listener() -> Iterator[LoopbackListener]:
    """A listener on the loopback interface. A connection to it fails the test."""
    with LoopbackListener() as listening:
        yield listening
        assert not listening.was_reached()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LookedUp]:
    """Return a function that sets the resolver's results, one list per lookup; the last one repeats.

    That function returns the list of the host names that were looked up.
    """

    def set_results(*results: list[str]) -> LookedUp:
        looked_up: LookedUp = []

        def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            addresses = results[min(len(looked_up), len(results) - 1)]
            looked_up.append(host)
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return looked_up

    return set_results


@pytest.fixture
def attempted_connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of all connection attempts; none succeeds."""
    addresses: list[str] = []

    def begin_connecting(sock: socket.socket, address: Any) -> None:
        addresses.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(connection, "begin_connecting", begin_connecting)
    return addresses


def endpoint(url: str) -> Endpoint:
    return Endpoint(enabled=True, webhook_url=Secret.of(url), auth_type="none", bearer_token=Secret(""))


def error_code(result: HttpResponse | SendResult) -> str:
    assert isinstance(result, SendResult), "the endpoint responded"
    return result.error_code


class TestRefusedAddresses:
    def test_the_list_is_long_and_has_no_duplicates(self) -> None:
        assert len(set(REFUSED)) == len(REFUSED) >= 250

    def test_the_rules_refuse_each_with_a_reason(self) -> None:
        accepted = [url for url in REFUSED if not check_webhook_url(url.replace("PORT", "443"), service_options())]

        assert accepted == []

    @pytest.mark.django_db
    def test_the_admin_saves_none(
        self, admin_client: Client, make_user: Callable[..., User], listener: LoopbackListener
    ) -> None:
        channel = UserNotificationChannel.objects.create(user=make_user())
        url = f"{CHANNELS}{channel.pk}/change/"

        saved = []
        for address in REFUSED:
            form = {
                "enabled": "on",
                "auth_type": "none",
                "new_webhook_url": address.replace("PORT", str(listener.port)),
            }
            if admin_client.post(url, form).status_code != 200:
                saved.append(address)

        # The form removes white space around the address, so only the stored value matters.
        channel.refresh_from_db()
        assert [address for address in saved if address.strip() != GOOD] == []
        assert channel.webhook_url.reveal() in ("", GOOD)

    @pytest.mark.django_db(transaction=True)
    def test_the_engine_calls_none_that_is_in_the_table(
        self, make_user: Callable[..., User], listener: LoopbackListener, resolve: Callable[..., LookedUp]
    ) -> None:
        looked_up = resolve(["127.0.0.1"])
        users = User.objects.bulk_create(User(username=f"u{number}") for number in range(len(REFUSED)))
        for user, address in zip(users, REFUSED, strict=True):
            UserNotificationChannel.objects.create(user=user, webhook_url=address.replace("PORT", str(listener.port)))
            make_record("pending", user_id=user.pk, next_attempt_at="2026-01-01T00:00Z", dedupe_key=f"{user.pk}")

        Engine().deliver_due()

        error_codes = dict(NotificationRecord.objects.values_list("user_id", "last_error_code"))
        wrong = {
            address: error_codes[user.pk]
            for user, address in zip(users, REFUSED, strict=True)
            if error_codes[user.pk] != ("invalid_url" if address else "recipient_missing")
        }
        assert wrong == {}
        assert NotificationRecord.objects.by_status() == {"dead": len(REFUSED) - 1, "skipped": 1}
        assert looked_up == []

    def test_none_reaches_the_loopback_interface_without_the_rules(
        self, monkeypatch: pytest.MonkeyPatch, listener: LoopbackListener
    ) -> None:
        monkeypatch.setattr(flow, "check_webhook_url", lambda url, options: "")
        real = socket.getaddrinfo

        def resolve_names_to_the_loopback(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            try:
                results = real(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            except (OSError, UnicodeError):
                results = []
            private = [item for item in results if not is_public(str(item[4][0]))]
            return private or real("127.0.0.1", port, type=socket.SOCK_STREAM)

        monkeypatch.setattr(socket, "getaddrinfo", resolve_names_to_the_loopback)
        provider = FeishuFlowProvider()

        results = [
            attempt_send(provider, REQUEST, endpoint(url.replace("PORT", str(listener.port)))) for url in REFUSED
        ]

        assert Outcome.SUCCESS not in {result.outcome for result in results}

    def test_a_session_reaches_none_of_them(self, monkeypatch: pytest.MonkeyPatch, listener: LoopbackListener) -> None:
        real = socket.getaddrinfo

        def resolve_names_to_the_loopback(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            return real("127.0.0.1", port, type=socket.SOCK_STREAM)

        monkeypatch.setattr(socket, "getaddrinfo", resolve_names_to_the_loopback)
        session = GuardedSession()
        reached = []

        for url in REFUSED:
            try:
                reached.append(session.post(url.replace("PORT", str(listener.port)), data=b"{}"))
            except (ValueError, requests.RequestException):  # an address that is none, or one that is not public
                pass

        assert reached == []

    def test_the_listener_notices_a_connection(self) -> None:
        with LoopbackListener() as listener:
            before = listener.was_reached()
            socket.create_connection(("127.0.0.1", listener.port)).close()

            assert (before, listener.was_reached(), listener.was_reached()) == (False, True, False)

    def test_the_listener_is_reached_if_sandbox_origins_allows_it(self) -> None:
        with LoopbackListener() as listener:
            options = dataclasses.replace(
                service_options(), sandbox_origins=(f"http://127.0.0.1:{listener.port}",), read_timeout=0.1
            )

            HttpPoster(options).post(f"http://127.0.0.1:{listener.port}{PATH}", b"{}", {})

            assert listener.was_reached()


NOT_PUBLIC = {
    "this network": ("0.0.0.0", "0.1.2.3"),
    "private": ("10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"),
    "carrier-grade NAT": ("100.64.0.0", "100.100.100.200", "100.127.255.255"),
    "loopback": ("127.0.0.1", "127.255.255.254", "::1"),
    "link-local": ("169.254.0.1", "169.254.169.254", "fe80::1", "febf::1"),
    "protocol assignments": ("192.0.0.1", "192.0.0.9", "192.0.0.170", "192.0.0.255", "2001:1::1", "2001:1ff::1"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "3fff:fff::1"),
    "6to4": ("192.88.99.0", "192.88.99.255", "2002::1", "2002:808:808::1", "2002:7f00:1::"),
    "benchmarks": ("198.18.0.1", "198.19.255.255", "2001:2::1"),
    "multicast": ("224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1", "ff05::2"),
    "reserved": ("240.0.0.1", "255.255.255.254", "200::1", "1000::1", "4000::1", "c000::1", "e000::1"),
    "broadcast": ("255.255.255.255",),
    "unspecified": ("::",),
    "IPv4-compatible": ("::127.0.0.1", "::8.8.8.8", "::7f00:1"),
    "IPv4-mapped": ("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0a00:1"),
    "IPv4-translated": ("::ffff:0:127.0.0.1",),
    "NAT64": ("64:ff9b::127.0.0.1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff"),
    "discard": ("100::1", "100:0:0:1::1"),
    "Teredo": ("2001::1", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    "ORCHID": ("2001:10::1", "2001:20::1"),
    "SRv6": ("5f00::1", "5f00:ffff::1"),
    "unique local": ("fc00::1", "fd00:ec2::254", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "site-local": ("fec0::1", "feff::1"),
    "ISATAP": ("2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1", "fe80::5efe:8.8.8.8"),
    "with a zone": ("fe80::1%eth0", "fe80::1%1", "::1%lo", "2606:4700:4700::1111%eth0"),
    "no address": ("", "localhost", "127.1", "0x7f000001", "2130706433", "127.000.000.001", "8.8.8.8 ", "8.8.8.8/32"),
}
PUBLIC_ADDRESSES = (
    *("8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0"),
    *("100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1"),
    *("169.253.255.255", "172.15.255.255", "172.32.0.0"),
    *("192.0.1.1", "192.88.98.255", "192.169.0.0", "198.17.255.255"),
    *("198.20.0.0", "223.255.255.255", "2606:4700:4700::1111", "2001:4860:4860::8888", "2001:200::1", "2003::1"),
    *("2400:3200::1", "2a00:1450:4001::1", "3ffe::1"),
)  # fmt: skip


class TestIsPublic:
    def test_reserved_addresses_are_not_public(self) -> None:
        wrong = [
            (kind, address) for kind, addresses in NOT_PUBLIC.items() for address in addresses if is_public(address)
        ]

        assert wrong == []

    def test_addresses_next_to_reserved_networks_are_public(self) -> None:
        assert [address for address in PUBLIC_ADDRESSES if not is_public(address)] == []


class TestResolver:
    def test_the_connection_goes_to_the_checked_address(
        self, listener: LoopbackListener, resolve: Callable[..., LookedUp], attempted_connections: list[str]
    ) -> None:
        looked_up = resolve([PUBLIC], ["127.0.0.1"])

        result = HttpPoster(service_options()).post(GOOD, b"{}", {})

        assert (error_code(result), attempted_connections) == ("network_error", [PUBLIC])
        assert looked_up == ["www.feishu.cn"], "a second lookup could have another result"

    def test_a_name_that_changes_to_a_private_address_is_refused(
        self, listener: LoopbackListener, resolve: Callable[..., LookedUp], attempted_connections: list[str]
    ) -> None:
        resolve([PUBLIC], ["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"])
        poster = HttpPoster(service_options())

        results = [poster.post(GOOD, b"{}", {}) for _ in range(5)]

        assert attempted_connections == [PUBLIC]
        assert all("not public" in getattr(result, "error_message", "") for result in results[1:])

    def test_only_the_public_addresses_of_a_name_are_used(
        self, listener: LoopbackListener, resolve: Callable[..., LookedUp], attempted_connections: list[str]
    ) -> None:
        resolve(["127.0.0.1", "::1", PUBLIC, "10.0.0.1", "2606:4700:4700::1111", "64:ff9b::1", "fe80::1%lo"])

        HttpPoster(service_options()).post(GOOD, b"{}", {})

        assert attempted_connections == [PUBLIC, "2606:4700:4700::1111"]

    def test_sandbox_origins_allow_private_addresses_to_that_origin_only(
        self, listener: LoopbackListener, resolve: Callable[..., LookedUp], attempted_connections: list[str]
    ) -> None:
        resolve(["127.0.0.1"])
        poster = HttpPoster(dataclasses.replace(service_options(), sandbox_origins=("http://127.0.0.1:9",)))

        for url in (f"http://127.0.0.1:9{PATH}", GOOD):
            poster.post(url, b"{}", {})

        assert attempted_connections == ["127.0.0.1"], "the second request has another origin"


class _RedirectHandler(BaseHTTPRequestHandler):
    """Answers every request with the status and the headers of its server."""

    server: _Redirector

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls += 1
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


class _Redirector(HTTPServer):
    status = 302
    calls = 0
    headers: dict[str, str]


@pytest.fixture
def redirector() -> Iterator[_Redirector]:
    with _Redirector(("127.0.0.1", 0), _RedirectHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestRedirectsAndProxies:
    def test_no_response_causes_a_request_to_another_address(
        self, listener: LoopbackListener, redirector: _Redirector
    ) -> None:
        origin = f"http://127.0.0.1:{redirector.server_port}"
        # The target is allowed, so that only the client's rule against redirects protects it.
        origins = (origin, f"http://127.0.0.1:{listener.port}", f"http://[::1]:{listener.port}")
        poster = HttpPoster(dataclasses.replace(service_options(), sandbox_origins=origins))
        targets = [f"{start}:{listener.port}/" for start in ("http://127.0.0.1", "//127.0.0.1", "http://[::1]")]
        cases = itertools.product((200, 201, 300, 301, 302, 303, 305, 307, 308), targets)

        for calls, (status, target) in enumerate(cases, start=1):
            redirector.status = status
            redirector.headers = {"Location": target, "Content-Location": target, "Refresh": f"0; url={target}"}

            response = poster.post(origin + PATH, b"{}", {})

            assert getattr(response, "status", None) == status, (status, target)
            assert (redirector.calls, listener.was_reached()) == (calls, False), (status, target)

    def test_proxies_of_the_environment_are_not_used(
        self, monkeypatch: pytest.MonkeyPatch, listener: LoopbackListener
    ) -> None:
        for scheme in ("http", "https", "all", "ftp", "socks"):
            for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
                monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with Sandbox() as sandbox:
            poster = HttpPoster(dataclasses.replace(service_options(), sandbox_origins=(sandbox.origin,)))

            response = poster.post(sandbox.origin + PATH, b"{}", {})

            assert getattr(response, "status", None) == 200
            assert len(sandbox.deliveries()) == 1


class TestPrivateFeishu:
    """The hosts of FEISHU_HOSTS are accepted, may be in a private network, and nothing else changes."""

    NAMED = ("feishu.corp.example", "feishu.corp.example:8443")
    PATHS: ClassVar[dict[type[WebhookProvider], str]] = {
        FeishuFlowProvider: "/flow/api/trigger-webhook/",
        FeishuBotProvider: "/open-apis/bot/v2/hook/",
        FeishuBaseProvider: "/base/automation/webhook/event/",
    }

    def test_each_feishu_channel_accepts_named_hosts_and_no_other(self) -> None:
        options = dataclasses.replace(service_options(), feishu_hosts=self.NAMED)
        hosts = {
            **dict.fromkeys(self.NAMED, True),
            "feishu.corp.example:443": False,
            "x.feishu.corp.example": False,
            "feishu.corp.example.evil.example": False,
            "FEISHU.corp.example": False,
            "u@feishu.corp.example": False,
        }

        for kind, path in self.PATHS.items():
            for host, accepted in hosts.items():
                url = f"https://{host}{path}{KEY}"
                assert (not kind(options).address_problem(url)) == accepted, url
                assert kind(service_options()).address_problem(url), url
                assert kind(options).address_problem(url.replace("https", "http")), url
                assert kind(options).address_problem(f"https://{host}/elsewhere/{KEY}"), url

    def test_only_the_feishu_channels_reach_a_private_address_of_a_named_host(
        self, resolve: Callable[..., LookedUp], attempted_connections: list[str]
    ) -> None:
        resolve(["10.0.0.5"])
        options = dataclasses.replace(service_options(), feishu_hosts=self.NAMED)

        for kind, path in self.PATHS.items():
            result = attempt_send(kind(options), REQUEST, endpoint(f"https://feishu.corp.example{path}{KEY}"))
            assert result.error_code == "network_error"
            assert attempted_connections.pop() == "10.0.0.5", kind

        secret = Secret.of(f"whsec_{'A' * 32}")
        target = dataclasses.replace(
            endpoint("https://feishu.corp.example/hook"), auth_type="signature", bearer_token=secret
        )
        result = attempt_send(StandardWebhookProvider(options), REQUEST, target)
        assert (result.error_code, attempted_connections) == ("network_error", [])
        assert "not public" in result.error_message

    def test_a_vendors_host_must_still_be_public(
        self, resolve: Callable[..., LookedUp], attempted_connections: list[str]
    ) -> None:
        resolve(["10.0.0.5"])
        options = dataclasses.replace(service_options(), feishu_hosts=self.NAMED)

        result = attempt_send(FeishuFlowProvider(options), REQUEST, endpoint(GOOD))

        assert (result.error_code, attempted_connections) == ("network_error", [])

    def test_alerts_go_to_a_named_host(
        self, change: Callable[..., None], resolve: Callable[..., LookedUp], attempted_connections: list[str]
    ) -> None:
        resolve(["10.0.0.5"])
        url = f"https://feishu.corp.example/open-apis/bot/v2/hook/{KEY}"
        change(FEISHU_HOSTS=list(self.NAMED), ALERT_FEISHU_WEBHOOK=url)

        with pytest.raises(ReceiverError):
            configured_receivers()["feishu"]("subject", "text")

        assert attempted_connections == ["10.0.0.5"]
