"""Where we send: addresses that must never be called, however they are written, found or redirected to."""

from __future__ import annotations

import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from notifications.conf import service_options
from notifications.delivery.engine import Engine
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers.base import Endpoint, SendResult, attempt_send
from notifications.providers.feishu import flow
from notifications.providers.feishu.flow import FeishuFlowProvider, check_webhook_url
from notifications.providers.http.client import HttpPoster, HttpResponse
from notifications.providers.http.ssrf_guard import DeadlineSocket, is_public
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST
from notifications.testing.sandbox.server import Sandbox
from tests.integration.rows import make_record
from tests.security.addresses import GOOD, PATH, REFUSED
from tests.security.trap import Canary

CHANNELS = "/admin/notifications/usernotificationchannel/"
PUBLIC = "93.184.215.14"
Lookups = list[str]


@pytest.fixture
def canary() -> Iterator[Canary]:
    """A listener on the loopback; whoever connected to it fails the test."""
    with Canary() as listening:
        yield listening
        assert not listening.touched()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Lookups]:
    """Return a function that sets the answers of the resolver, one list per look-up, the last for ever."""

    def answer(*answers: list[str]) -> Lookups:
        asked: Lookups = []

        def getaddrinfo(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            found = answers[min(len(asked), len(answers) - 1)]
            asked.append(host)
            return [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
                if ":" in address
                else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in found
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return asked

    return answer


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address a connection was tried to; none is made."""
    tried: list[str] = []

    def connect(self: socket.socket, address: Any) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(DeadlineSocket, "connect", connect)
    return tried


def endpoint(url: str) -> Endpoint:
    return Endpoint(enabled=True, webhook_url=Secret.of(url), auth_type="none", bearer_token=Secret(""))


def code(result: HttpResponse | SendResult) -> str:
    assert isinstance(result, SendResult), "there was an answer"
    return result.error_code


class TestTable:
    def test_is_large_and_holds_nothing_twice(self) -> None:
        assert len(set(REFUSED)) == len(REFUSED) >= 250

    @pytest.mark.parametrize("url", REFUSED, ids=[ascii(url)[:70] for url in REFUSED])
    def test_each_is_refused_with_a_reason(self, url: str) -> None:
        assert check_webhook_url(url.replace("PORT", "443"), service_options())

    @pytest.mark.django_db
    def test_none_can_be_saved(self, admin_client: Client, make_user: Callable[..., User], canary: Canary) -> None:
        channel = UserNotificationChannel.objects.create(user=make_user())
        url = f"{CHANNELS}{channel.pk}/change/"

        taken = []
        for address in REFUSED:
            form = {"enabled": "on", "auth_type": "none", "new_webhook_url": address.replace("PORT", str(canary.port))}
            if admin_client.post(url, form).status_code != 200:
                taken.append(address)

        # White space around what was pasted is the form's to trim: what is judged is what is stored.
        channel.refresh_from_db()
        assert [address for address in taken if address.strip() != GOOD] == []
        assert channel.webhook_url.reveal() in ("", GOOD)

    @pytest.mark.django_db(transaction=True)
    def test_none_is_called_when_it_got_into_the_table_all_the_same(
        self, make_user: Callable[..., User], canary: Canary, resolve: Callable[..., Lookups]
    ) -> None:
        asked = resolve(["127.0.0.1"])
        users = User.objects.bulk_create(User(username=f"u{number}") for number in range(len(REFUSED)))
        for user, address in zip(users, REFUSED, strict=True):
            UserNotificationChannel.objects.create(user=user, webhook_url=address.replace("PORT", str(canary.port)))
            make_record("pending", user_id=user.pk, next_attempt_at="2026-01-01T00:00Z", dedupe_key=f"{user.pk}")

        Engine().deliver_due()

        ends = dict(NotificationRecord.objects.values_list("user_id", "last_error_code"))
        wrong = {
            address: ends[user.pk]
            for user, address in zip(users, REFUSED, strict=True)
            if ends[user.pk] != ("invalid_url" if address else "recipient_missing")
        }
        assert wrong == {}
        assert NotificationRecord.objects.by_status() == {"dead": len(REFUSED) - 1, "skipped": 1}
        assert asked == []

    def test_none_reaches_the_loopback_even_if_the_rules_let_it_through(
        self, monkeypatch: pytest.MonkeyPatch, canary: Canary
    ) -> None:
        monkeypatch.setattr(flow, "check_webhook_url", lambda url, options: "")
        real = socket.getaddrinfo

        def numbers_as_they_are_and_names_inside(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
            try:
                found = real(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            except (OSError, UnicodeError):
                found = []
            inside = [item for item in found if not is_public(str(item[4][0]))]
            return inside or real("127.0.0.1", port, type=socket.SOCK_STREAM)

        monkeypatch.setattr(socket, "getaddrinfo", numbers_as_they_are_and_names_inside)
        provider = FeishuFlowProvider()

        results = [attempt_send(provider, REQUEST, endpoint(url.replace("PORT", str(canary.port)))) for url in REFUSED]

        assert Outcome.SUCCESS not in {result.outcome for result in results}

    def test_the_canary_sees_who_comes(self) -> None:
        with Canary() as canary:
            before = canary.touched()
            socket.create_connection(("127.0.0.1", canary.port)).close()

            assert (before, canary.touched(), canary.touched()) == (False, True, False)

    def test_the_canary_would_be_reached_if_the_setting_named_it(self) -> None:
        with Canary() as canary:
            options = dataclasses.replace(
                service_options(), sandbox_origins=(f"http://127.0.0.1:{canary.port}",), read_timeout=0.1
            )

            HttpPoster(options).post(f"http://127.0.0.1:{canary.port}{PATH}", b"{}", {})

            assert canary.touched()


INSIDE = {
    "this network": ("0.0.0.0", "0.1.2.3"),
    "private": ("10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"),
    "shared by carriers": ("100.64.0.0", "100.100.100.200", "100.127.255.255"),
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
OUTSIDE = (
    *("8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0"),
    *("100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1"),
    *("169.253.255.255", "172.15.255.255", "172.32.0.0"),
    *("192.0.1.1", "192.88.98.255", "192.169.0.0", "198.17.255.255"),
    *("198.20.0.0", "223.255.255.255", "2606:4700:4700::1111", "2001:4860:4860::8888", "2001:200::1", "2003::1"),
    *("2400:3200::1", "2a00:1450:4001::1", "3ffe::1"),
)  # fmt: skip


class TestResolvedAddress:
    @pytest.mark.parametrize("kind", INSIDE)
    def test_no_kind_of_inside_address_is_public(self, kind: str) -> None:
        assert [address for address in INSIDE[kind] if is_public(address)] == []

    def test_the_open_internet_is_up_to_the_edges_of_those(self) -> None:
        assert [address for address in OUTSIDE if not is_public(address)] == []


class TestResolver:
    def test_the_address_that_was_checked_is_the_one_connected_to(
        self, canary: Canary, resolve: Callable[..., Lookups], connects: list[str]
    ) -> None:
        asked = resolve([PUBLIC], ["127.0.0.1"])

        result = HttpPoster(service_options()).post(GOOD, b"{}", {})

        assert (code(result), connects) == ("network_error", [PUBLIC])
        assert asked == ["www.feishu.cn"], "a second look-up is a second answer"

    def test_a_name_that_turns_inside_is_refused_from_then_on(
        self, canary: Canary, resolve: Callable[..., Lookups], connects: list[str]
    ) -> None:
        resolve([PUBLIC], ["127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"])
        poster = HttpPoster(service_options())

        results = [poster.post(GOOD, b"{}", {}) for _ in range(5)]

        assert connects == [PUBLIC]
        assert all("not public" in getattr(result, "error_message", "") for result in results[1:])

    def test_of_several_addresses_only_the_public_ones_are_tried(
        self, canary: Canary, resolve: Callable[..., Lookups], connects: list[str]
    ) -> None:
        resolve(["127.0.0.1", "::1", PUBLIC, "10.0.0.1", "2606:4700:4700::1111", "64:ff9b::1", "fe80::1%lo"])

        HttpPoster(service_options()).post(GOOD, b"{}", {})

        assert connects == [PUBLIC, "2606:4700:4700::1111"]

    def test_a_sandbox_opens_the_inside_to_itself_alone(
        self, canary: Canary, resolve: Callable[..., Lookups], connects: list[str]
    ) -> None:
        resolve(["127.0.0.1"])
        poster = HttpPoster(dataclasses.replace(service_options(), sandbox_origins=("http://127.0.0.1:9",)))

        for url in (f"http://127.0.0.1:9{PATH}", GOOD):
            poster.post(url, b"{}", {})

        assert connects == ["127.0.0.1"], "the second is another origin"


class _Elsewhere(BaseHTTPRequestHandler):
    """Sends everybody on, by the status and headers its server was given."""

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
    with _Redirector(("127.0.0.1", 0), _Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestDetours:
    @pytest.mark.parametrize("status", [200, 201, 300, 301, 302, 303, 305, 307, 308])
    @pytest.mark.parametrize("where", ["http://127.0.0.1:PORT/", "//127.0.0.1:PORT/", "http://[::1]:PORT/"])
    def test_no_answer_leads_to_another_address(
        self, canary: Canary, redirector: _Redirector, status: int, where: str
    ) -> None:
        target = where.replace("PORT", str(canary.port))
        redirector.status = status
        redirector.headers = {"Location": target, "Content-Location": target, "Refresh": f"0; url={target}"}
        origin = f"http://127.0.0.1:{redirector.server_port}"
        # Both are allowed, so that nothing but the refusal to follow keeps us away.
        origins = (origin, f"http://127.0.0.1:{canary.port}", f"http://[::1]:{canary.port}")
        poster = HttpPoster(dataclasses.replace(service_options(), sandbox_origins=origins))

        answer = poster.post(origin + PATH, b"{}", {})

        assert getattr(answer, "status", None) == status
        assert redirector.calls == 1

    def test_no_proxy_of_the_environment_gets_a_message(self, monkeypatch: pytest.MonkeyPatch, canary: Canary) -> None:
        for scheme in ("http", "https", "all", "ftp", "socks"):
            for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper()):
                monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        with Sandbox() as sandbox:
            poster = HttpPoster(dataclasses.replace(service_options(), sandbox_origins=(sandbox.origin,)))

            answer = poster.post(sandbox.origin + PATH, b"{}", {})

            assert getattr(answer, "status", None) == 200
            assert len(sandbox.deliveries()) == 1
