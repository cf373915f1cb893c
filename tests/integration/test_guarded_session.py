"""The session of requests has the bounds of a webhook: one send, a deadline, checked addresses, a bounded response."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from notifications.conf import ServiceOptions
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Endpoint, SendResult
from notifications.providers.http.io_loop import close_idle_loops
from notifications.providers.http.response_reader import MAX_RESPONSE_BYTES
from notifications.providers.http.session import GuardedSession, RequestFailed
from notifications.security.secrets import Secret
from notifications.states import ErrorCode, Outcome
from tests.support.claims import REQUEST
from tests.support.provider_guide import read_guide
from tests.support.scripted_server import OK, ScriptedServer


@pytest.fixture(autouse=True)
def _closed_loops() -> None:
    close_idle_loops()


def session_for(*origins: str, **changes: Any) -> GuardedSession:
    return GuardedSession(ServiceOptions(sandbox_origins=origins, **changes))


def answering(*answers: bytes) -> Callable[[ScriptedServer], Callable[[socket.socket, int], None]]:
    """Return a script: one request is read and answered after the other on each connection."""

    def script_of(server: ScriptedServer) -> Callable[[socket.socket, int], None]:
        def script(connection: socket.socket, number: int) -> None:
            for answer in answers:
                server.read_request(connection)
                connection.sendall(answer)

        return script

    return script_of


class TestRequests:
    def test_the_methods_headers_and_bodies_of_requests_arrive(self) -> None:
        heads: list[bytes] = []

        def script(connection: socket.socket, number: int) -> None:
            for _ in range(2):
                data = b""
                while b"\r\n\r\n" not in data or (b"Content-Length: 7" in data and not data.endswith(b"a=1&b=2")):
                    data += connection.recv(4096)
                heads.append(data)
                connection.sendall(OK)

        with ScriptedServer(script) as server:
            session = session_for(server.origin)
            got = session.get(f"{server.origin}/x", params={"q": "ä b"}, headers={"accept-encoding": "gzip"})
            put = session.put(f"{server.origin}/y", data={"a": "1", "b": "2"}, auth=("user", "word"))

        assert (got.status_code, got.json(), put.ok, put.reason) == (200, {}, True, "OK")
        assert heads[0].startswith(b"GET /x?q=%C3%A4+b HTTP/1.1\r\n")
        assert heads[0].lower().count(b"accept-encoding:") == 1
        assert b"Content-" not in heads[0]
        assert heads[1].startswith(b"PUT /y HTTP/1.1\r\n")
        assert b"Content-Type: application/x-www-form-urlencoded\r\n" in heads[1]
        assert b"Authorization: Basic dXNlcjp3b3Jk\r\n" in heads[1]
        assert heads[1].endswith(b"\r\n\r\na=1&b=2")

    def test_connections_stay_open_from_session_to_session(self) -> None:
        with ScriptedServer(lambda connection, number: answering(OK, OK)(server)(connection, number)) as server:
            for _ in range(2):
                with session_for(server.origin) as session:
                    assert session.post(f"{server.origin}/a", data=b"{}").status_code == 200

            assert server.connections == 1

    def test_a_redirect_is_returned_and_not_followed(self) -> None:
        away = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"
        with ScriptedServer(lambda connection, number: answering(away)(server)(connection, number)) as server:
            response = session_for(server.origin).post(f"{server.origin}/a", data=b"{}", allow_redirects=True)

            assert (response.status_code, len(server.requests)) == (307, 1)

    def test_a_kept_connection_that_ends_without_an_answer_gets_the_request_once(self) -> None:
        def script(connection: socket.socket, number: int) -> None:
            server.read_request(connection)
            connection.sendall(OK)
            server.read_request(connection)
            connection.close()

        with ScriptedServer(script) as server:
            session = session_for(server.origin)
            session.post(f"{server.origin}/a", data=b"{}")
            with pytest.raises(RequestFailed) as failed:
                session.post(f"{server.origin}/b", data=b"{}")

            assert failed.value.result.maybe_delivered
            assert (server.connections, len(server.requests)) == (1, 2)

    def test_cookies_netrc_and_proxies_of_the_environment_are_not_used(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password word\n")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\n{}"
        with ScriptedServer(lambda connection, number: answering(cookie, OK)(server)(connection, number)) as server:
            session = session_for(server.origin)
            for _ in range(2):
                assert session.post(f"{server.origin}/a", data=b"{}").ok

            assert b"Authorization" not in server.requests[0]
            assert b"Cookie" not in server.requests[1]


class TestBounds:
    def test_the_body_is_cut_at_the_largest_response(self) -> None:
        long = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000

        def script(connection: socket.socket, number: int) -> None:
            server.read_request(connection)
            with_error_ignored(connection.sendall, long)

        with ScriptedServer(script) as server:
            response = session_for(server.origin).post(f"{server.origin}/a", data=b"{}")

        assert len(response.content) == MAX_RESPONSE_BYTES

    def test_a_receiver_that_is_silent_ends_the_request_at_its_own_deadline(self) -> None:
        released = threading.Event()

        def script(connection: socket.socket, number: int) -> None:
            server.read_request(connection)
            released.wait(60)

        with ScriptedServer(script) as server:
            session = session_for(server.origin, total_timeout=50.0, read_timeout=50.0)
            with pytest.raises(RequestFailed, match="no response in time") as failed:
                session.post(f"{server.origin}/a", data=b"{}", timeout=0.2)
            released.set()

        assert failed.value.result.error_code == ErrorCode.PROVIDER_TIMEOUT
        assert failed.value.result.maybe_delivered

    def test_what_is_not_supported_is_refused_by_name(self) -> None:
        session = session_for()
        for arguments, word in (
            ({"verify": False}, "verify"),
            ({"proxies": {"http": "http://127.0.0.1:9"}}, "proxies"),
            ({"timeout": (1, 2)}, "timeout"),
            ({"data": iter([b"x"])}, "Transfer-Encoding|stream"),
        ):
            with pytest.raises(ValueError, match=word):
                session.post("https://example.com/", **arguments)
        with pytest.raises(ValueError, match="method must be one of GET"):
            session.head("https://example.com/")
        with pytest.raises(requests.exceptions.InvalidSchema):
            session.get("file:///etc/passwd")


class TestProviderOfTheGuide:
    """The example of docs/providers.md, "A provider that blocks"."""

    ENDPOINT = Endpoint(enabled=True, webhook_url=Secret(""), auth_type="none", bearer_token=Secret(""))
    NUMBER = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"number": 17}'

    @pytest.fixture
    def attempt(self, change: Callable[..., None]) -> Callable[[bytes], tuple[SendResult, list[bytes]]]:
        """Return a function that makes an attempt whose post is answered with these bytes."""
        code: dict[str, Any] = {}
        exec(read_guide().blocking_provider, code)  # noqa: S102  our own page

        def attempt(answer: bytes) -> tuple[SendResult, list[bytes]]:
            seen: list[bytes] = []

            def script(connection: socket.socket, number: int) -> None:
                for reply in (self.NUMBER, answer):
                    data = b""
                    while b"\r\n\r\n" not in data or (data.startswith(b"POST") and not data.endswith(b"}")):
                        data += connection.recv(4096)
                    seen.append(data)
                    connection.sendall(reply)

            with ScriptedServer(script) as server:
                change(SANDBOX_ORIGINS=[server.origin])
                provider = code["NumberPagerProvider"](f"{server.origin}/people", f"{server.origin}/send")
                return attempt_send(provider, REQUEST, self.ENDPOINT), seen

        return attempt

    def test_it_looks_up_and_sends(self, attempt: Callable[[bytes], tuple[SendResult, list[bytes]]]) -> None:
        result, seen = attempt(OK)

        assert (result.outcome, result.http_status) == (Outcome.SUCCESS, 200)
        assert seen[0].startswith(b"GET /people/42 HTTP/1.1\r\n")
        assert seen[1].endswith(b'{"number": 17, "text": "text\\n/a"}')

    def test_a_request_without_an_answer_may_have_arrived(
        self, attempt: Callable[[bytes], tuple[SendResult, list[bytes]]]
    ) -> None:
        result, _seen = attempt(b"")

        assert (result.outcome, result.error_code) == (Outcome.TEMPORARY_FAIL, ErrorCode.NETWORK_ERROR)
        assert "may have arrived" in result.error_message
        assert "127.0.0.1" not in result.error_message


def with_error_ignored(send: Callable[[bytes], object], data: bytes) -> None:
    try:
        send(data)
    except OSError:
        pass  # the other side has read enough
