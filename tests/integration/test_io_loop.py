"""The loop sends each request at most once and within its deadline, and no exchange waits for another."""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from notifications.conf import ServiceOptions
from notifications.providers.base import SendResult
from notifications.providers.http import io_loop, ssrf_guard
from notifications.providers.http.client import HttpPoster
from notifications.providers.http.io_loop import IoLoop, borrow_loop, close_idle_loops
from notifications.providers.http.messages import Exchange, HttpRequest, HttpResponse
from notifications.states import Outcome
from tests.support.certificates import write_certificate
from tests.support.http_proxy import TlsReceiver
from tests.support.scripted_server import OK, ScriptedServer


@pytest.fixture(autouse=True)
def _closed_loops() -> Iterator[None]:
    """No connection of another test is used, and none is left."""
    close_idle_loops()
    yield
    close_idle_loops()


def poster_for(*origins: str, **changes: Any) -> HttpPoster:
    return HttpPoster(ServiceOptions(sandbox_origins=origins, **changes))


def status_or_error(answer: HttpResponse | SendResult) -> int | str:
    return answer.status if isinstance(answer, HttpResponse) else answer.error_message


def post_one(url: str) -> Exchange:
    """Post once; the result's text is the status or the error."""
    return SendResult(outcome="", error_message=str(status_or_error((yield HttpRequest(f"{url}/hook", b"{}")))))


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class TestAtMostOnce:
    @pytest.mark.parametrize("end", [socket.socket.close, reset], ids=["closed", "reset"])
    @pytest.mark.parametrize("answered", [b"", b"HTTP/1.1 2"], ids=["nothing", "a part"])
    def test_a_kept_connection_that_ends_without_an_answer_gets_the_request_once(
        self, end: Callable[[socket.socket], None], answered: bytes
    ) -> None:
        def script(connection: socket.socket, number: int) -> None:
            server.read_request(connection)
            connection.sendall(OK)
            server.read_request(connection)
            connection.sendall(answered)
            end(connection)

        with ScriptedServer(script) as server:
            poster = poster_for(server.origin)
            first = poster.post(f"{server.origin}/a", b"{}", {})
            second = poster.post(f"{server.origin}/b", b"{}", {})

            assert status_or_error(first) == 200
            assert isinstance(second, SendResult)
            assert (second.outcome, second.maybe_delivered) == (Outcome.TEMPORARY_FAIL, True)
            assert (server.connections, len(server.requests)) == (1, 2)

    def test_a_connection_that_was_closed_while_it_was_idle_is_not_used(self) -> None:
        closed = threading.Event()

        def script(connection: socket.socket, number: int) -> None:
            server.read_request(connection)
            connection.sendall(OK)
            connection.close()
            closed.set()

        with ScriptedServer(script) as server:
            poster = poster_for(server.origin)
            for _ in range(3):
                assert status_or_error(poster.post(f"{server.origin}/a", b"{}", {})) == 200
                assert closed.wait(10)
                closed.clear()

            assert (server.connections, len(server.requests)) == (3, 3)

    def test_bytes_that_arrive_before_a_request_are_not_its_answer(self) -> None:
        written = threading.Event()

        def script(connection: socket.socket, number: int) -> None:
            server.read_request(connection)
            connection.sendall(OK)
            if number == 0:
                asked.wait(10)
                connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")
                written.set()
                server.read_request(connection)  # returns at the end of the connection

        asked = threading.Event()
        with ScriptedServer(script) as server:
            poster = poster_for(server.origin)
            assert status_or_error(poster.post(f"{server.origin}/a", b"{}", {})) == 200
            asked.set()
            assert written.wait(10)

            assert status_or_error(poster.post(f"{server.origin}/b", b"{}", {})) == 200
            assert (server.connections, len(server.requests)) == (2, 2)

    def test_a_connection_that_was_idle_for_too_long_is_not_used(self) -> None:
        def script(connection: socket.socket, number: int) -> None:
            while server.read_request(connection):
                connection.sendall(OK)

        with ScriptedServer(script) as server:
            kept = poster_for(server.origin, idle_connection_ttl=1000.0)
            for _ in range(2):
                kept.post(f"{server.origin}/a", b"{}", {})
            assert server.connections == 1

            poster_for(server.origin, idle_connection_ttl=1e-9).post(f"{server.origin}/a", b"{}", {})

            assert (server.connections, len(server.requests)) == (2, 3)
            close_idle_loops()


class TestDeadline:
    def test_it_includes_the_lookup_of_the_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        release = threading.Event()
        resolver_ended: list[str] = []

        def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> list[Any]:
            release.wait(30)
            resolver_ended.append(host)
            return []

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        result = HttpPoster(ServiceOptions(total_timeout=0.2)).post("https://hooks.example/a", b"{}", {})

        assert status_or_error(result) == "no response in time"
        assert not getattr(result, "maybe_delivered", True)
        assert resolver_ended == [], "the attempt did not wait for the resolver"
        release.set()

    def test_an_answer_that_has_arrived_counts_however_late_the_process_looks(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def script(connection: socket.socket, number: int) -> None:
            server.read_request(connection)
            connection.sendall(OK)
            server.read_request(connection)

        class Interrupted(selectors.DefaultSelector):
            """Reports nothing when an answer is there, as after the process was stopped until its deadline passed."""

            stopped = False

            def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
                events = super().select(timeout)
                if self.stopped or not any(mask & selectors.EVENT_READ for _key, mask in events):
                    return events
                self.stopped = True
                right = time.monotonic
                monkeypatch.setattr(io_loop, "time", SimpleNamespace(monotonic=lambda: right() + 1000))
                return []

        monkeypatch.setattr(selectors, "DefaultSelector", Interrupted)
        with ScriptedServer(script) as server:
            result = poster_for(server.origin).post(f"{server.origin}/a", b"{}", {})
            close_idle_loops()

        assert status_or_error(result) == 200

    def test_it_ends_an_answer_in_small_pieces(self) -> None:
        def script(connection: socket.socket, number: int) -> None:
            server.read_request(connection)
            try:
                while True:
                    connection.sendall(b"H" if number else OK[:1])
                    if ended.wait(0.02):
                        return
            except OSError:
                return

        ended = threading.Event()
        with ScriptedServer(script) as server:
            result = poster_for(server.origin, total_timeout=0.3).post(f"{server.origin}/a", b"{}", {})
            ended.set()

        assert status_or_error(result) != 200
        assert getattr(result, "maybe_delivered", False)

    def test_one_lookup_serves_all_that_need_the_name_at_the_same_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        release = threading.Event()

        def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> list[Any]:
            asked.append(host)
            release.wait(30)
            return []

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        results: list[Any] = []
        with borrow_loop() as loop:
            for _ in range(50):
                loop.start(HttpPoster(ServiceOptions()), post_one("https://hooks.example"), results.append)
            release.set()
            run(loop)

        assert asked == ["hooks.example"]
        assert {result.error_message for result in results} == {"the host resolves to an address that is not public"}


def run(loop: IoLoop) -> None:
    """Run the loop until every exchange has ended."""
    while loop.in_flight:
        loop.poll(1.0)


def test_exchanges_do_not_wait_for_each_other() -> None:
    def script(connection: socket.socket, number: int) -> None:
        if b"POST /slow" in server.read_request(connection):
            release.wait(30)
        connection.sendall(OK)
        while server.read_request(connection):
            connection.sendall(OK)

    release = threading.Event()
    results: list[str] = []

    def exchange(name: str) -> Exchange:
        yield HttpRequest(f"{server.origin}/{name}", b"{}")
        yield HttpRequest(f"{server.origin}/{name}", b"{}")
        results.append(name)
        return SendResult(outcome=Outcome.SUCCESS)

    with ScriptedServer(script) as server:
        poster = poster_for(server.origin, read_timeout=30.0, total_timeout=60.0)
        with borrow_loop() as loop:
            loop.start(poster, exchange("slow"), lambda result: None)
            for number in range(20):
                loop.start(poster, exchange(f"fast{number}"), lambda result: None)
            while len(results) < 20:
                loop.poll(1.0)
            assert loop.in_flight == 1
            release.set()
            run(loop)

        assert results[-1] == "slow"
        assert len(server.requests) == 42
        close_idle_loops()


def test_an_exchange_that_raises_ends_alone() -> None:
    def script(connection: socket.socket, number: int) -> None:
        while server.read_request(connection):
            connection.sendall(OK)

    def broken() -> Exchange:
        yield HttpRequest(f"{server.origin}/a", b"{}")
        raise ZeroDivisionError

    results: list[Any] = []
    with ScriptedServer(script) as server, borrow_loop() as loop:
        loop.start(poster_for(server.origin), broken(), results.append)
        loop.start(poster_for(server.origin), post_one(server.origin), results.append)
        run(loop)

        assert {type(result) for result in results} == {ZeroDivisionError, SendResult}
        loop.close()


def test_an_abandoned_exchange_closes_its_connection() -> None:
    ended = threading.Event()

    def script(connection: socket.socket, number: int) -> None:
        server.read_request(connection)
        assert connection.recv(1) == b""
        ended.set()

    with ScriptedServer(script) as server:
        with borrow_loop() as loop:
            loop.start(poster_for(server.origin), post_one(server.origin), lambda result: None)
            while not server.requests:
                loop.poll(0.01)
        assert ended.wait(10)
        assert loop.in_flight == 0


def test_the_answer_to_an_abandoned_lookup_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    release, answered = threading.Event(), threading.Event()

    def getaddrinfo(*args: Any, **kwargs: Any) -> list[Any]:
        release.wait(30)
        answered.set()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    results: list[Any] = []
    with borrow_loop() as loop:
        loop.start(HttpPoster(ServiceOptions()), post_one("https://hooks.example"), results.append)
    release.set()
    assert answered.wait(30)

    with borrow_loop() as again:
        again.start(HttpPoster(ServiceOptions()), post_one("https://other.example"), results.append)
        run(again)

    assert again is loop
    assert len(results) == 1, "of the second exchange only"
    assert again.in_flight == 0


def test_certificates_are_read_once_for_all_tls_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = write_certificate(tmp_path / "endpoint.pem", "hooks.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    ssrf_guard.tls_context.cache_clear()
    receiver = TlsReceiver(certificate)
    address = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", receiver.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: address)
    reads: list[Any] = []
    load = ssl.SSLContext.load_verify_locations

    def count(context: ssl.SSLContext, *args: Any, **kwargs: Any) -> None:
        reads.append(args)
        load(context, *args, **kwargs)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", count)
    poster = HttpPoster(ServiceOptions(), private_hosts=["hooks.example"])
    try:
        for _ in range(5):
            assert status_or_error(poster.post("https://hooks.example/in", b"{}", {})) == 200
            close_idle_loops()
        assert len(reads) == 1
    finally:
        receiver.close()
        ssrf_guard.tls_context.cache_clear()


def test_the_time_without_a_look_at_the_network_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    lags: list[float] = []
    monkeypatch.setattr(io_loop, "note_lag", lags.append)
    ended = threading.Event()

    def script(connection: socket.socket, number: int) -> None:
        server.read_request(connection)
        ended.wait(30)

    with ScriptedServer(script) as server:
        with borrow_loop() as loop:
            loop.start(poster_for(server.origin), post_one(server.origin), lambda result: None)
            loop.poll(0)
            assert loop._looked_at
            loop._looked_at -= 5.0  # as if a claim had taken so long
            loop.poll(0)
        ended.set()

        with borrow_loop() as loop:  # what was abandoned is no lag of the next exchange
            loop.start(poster_for(server.origin), post_one(server.origin), lambda result: None)
            count = len(lags)
            loop.poll(0)

    assert max(lags) >= 5.0
    assert len(lags) == count
