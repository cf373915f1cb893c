"""The promises of the sandbox."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from notifications.testing import sandbox as sandbox_package
from notifications.testing.sandbox import ScriptedAnswer
from notifications.testing.sandbox.answers import PLAIN_WORDS
from notifications.testing.sandbox.client import SandboxClient
from notifications.testing.sandbox.journal import Delivery, Journal, read_journal
from notifications.testing.sandbox.server import Sandbox
from tests.dev import eventually
from tests.support.paths import ROOT

KEY = "0123456789abcdef0123456789abcdef"
BODY = {"event": "smartmate.schedule_adjustment_ready", "notification_id": 7, "message": {"title": "日程调整建议"}}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """A running sandbox with a journal."""
    with Sandbox(tmp_path / "journal") as sandbox:
        yield sandbox


@pytest.fixture
def connection(sandbox: Sandbox) -> Iterator[http.client.HTTPConnection]:
    """A connection to the sandbox that all requests use."""
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=10)
    yield connection
    connection.close()


def send(connection: http.client.HTTPConnection, key: str = KEY, body: object = BODY) -> http.client.HTTPResponse:
    """Send one delivery and return the response before its body is read."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": "Bearer token"}
    connection.request("POST", f"/flow/api/trigger-webhook/{key}", content, headers)
    return connection.getresponse()


def post(sandbox: Sandbox, key: str = KEY, body: object = BODY) -> tuple[int, bytes]:
    """Send one delivery over a new connection and return the status and the body of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=10)
    with contextlib.closing(connection):
        response = send(connection, key, body)
        return response.status, response.read()


def start_request(sandbox: Sandbox, key: str = KEY) -> socket.socket:
    """Send one delivery over a plain socket and do not wait for the response."""
    content = json.dumps(BODY).encode()
    head = f"POST /flow/api/trigger-webhook/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    client = socket.create_connection(("127.0.0.1", sandbox.port), timeout=10)
    client.sendall(head.encode() + content)
    return client


class TestAnswers:
    def test_words_for_json_responses(self, sandbox: Sandbox) -> None:
        rows = [
            ("ok", 200, {"code": 0, "msg": "success"}),
            ("code:0", 200, {"code": 0, "msg": "success"}),
            ("code:19001", 200, {"code": 19001, "msg": "param invalid: incoming webhook access token invalid"}),
            ("code:9499", 200, {"code": 9499, "msg": "Bad Request"}),
            ("code:9499:too many request", 200, {"code": 9499, "msg": "too many request"}),
            ("code:424242", 200, {"code": 424242, "msg": "unknown error"}),
            ("rate-limit:2", 429, {"code": 99991400, "msg": "request trigger frequency limit"}),
            ("slow:0.05", 200, {"code": 0, "msg": "success"}),
            ("slow:0.05:code:9499", 200, {"code": 9499, "msg": "Bad Request"}),
        ]

        for word, status, body in rows:
            sandbox.script(KEY, word)
            response = post(sandbox)
            assert (response[0], json.loads(response[1])) == (status, body), word

    def test_status_is_answered_with_a_short_body_and_an_open_connection(
        self, sandbox: Sandbox, connection: http.client.HTTPConnection
    ) -> None:
        for status in [200, 204, 401, 403, 404, 500, 503, 599]:
            sandbox.script(KEY, f"status:{status}", "ok")

            response = send(connection)
            assert (response.status, len(response.read()) < 100) == (status, True)

            response = send(connection)
            assert (response.status, response.read() != b"") == (200, True), status

    def test_rate_limit_sends_the_time_in_both_headers(
        self, sandbox: Sandbox, connection: http.client.HTTPConnection
    ) -> None:
        sandbox.script(KEY, "rate-limit:2")

        response = send(connection)

        assert response.getheader("Retry-After") == "2"
        assert response.getheader("x-ogw-ratelimit-reset") == "2"

    def test_slow_delays_the_response(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "slow:0.3")
        started_at = time.monotonic()

        assert post(sandbox)[0] == 200
        assert time.monotonic() - started_at >= 0.3

    def test_hold_waits_for_a_release(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "hold")
        with ThreadPoolExecutor() as pool:
            held = pool.submit(post, sandbox)
            sandbox.wait_for(1)
            sandbox.release("another")
            assert not held.done()

            sandbox.release(KEY)

            assert held.result(10)[0] == 200

    def test_release_without_a_key_releases_all_requests(self, sandbox: Sandbox) -> None:
        sandbox.script("a", "hold")
        sandbox.script("b", "hold")
        with ThreadPoolExecutor() as pool:
            held = [pool.submit(post, sandbox, key) for key in "ab"]
            sandbox.wait_for(2)

            sandbox.release()

            assert [answer.result(10)[0] for answer in held] == [200, 200]

    def test_a_held_request_ends_when_its_client_closes_the_connection(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "hold")
        before = threading.active_count()

        start_request(sandbox).close()
        sandbox.wait_for(1)

        eventually(lambda: threading.active_count() == before)

    def test_reset_resets_the_connection(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "reset")

        with start_request(sandbox) as client, pytest.raises(ConnectionResetError):
            client.recv(1)

    def test_garbage_is_neither_json_nor_text(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "garbage")

        status, body = post(sandbox)

        assert status == 200
        assert b"\0" in body
        with pytest.raises(UnicodeDecodeError):
            body.decode()

    def test_empty_has_no_body(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "empty")

        assert post(sandbox) == (200, b"")

    def test_redirect_points_to_a_closed_port(self, sandbox: Sandbox, connection: http.client.HTTPConnection) -> None:
        sandbox.script(KEY, "redirect")

        response = send(connection)

        assert (response.status, response.getheader("Location")) == (302, "http://127.0.0.1:1/")

    def test_huge_is_ten_megabytes(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "huge")

        status, body = post(sandbox)

        assert (status, len(body)) == (200, 10 * 1024 * 1024)

    def test_drip_sends_the_head_byte_by_byte(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "drip")
        started_at = time.monotonic()

        with start_request(sandbox) as client:
            received = b""
            while len(received) < 3:
                received += client.recv(3 - len(received))

        assert received == b"HTT"
        assert time.monotonic() - started_at >= 0.4

    def test_drip_body_sends_the_head_at_once(self, sandbox: Sandbox, connection: http.client.HTTPConnection) -> None:
        sandbox.script(KEY, "drip-body")

        response = send(connection)

        assert int(response.getheader("Content-Length") or 0) > 100_000
        assert response.read(2) == b"xx"


class TestWords:
    def test_unknown_words_raise(self, sandbox: Sandbox) -> None:
        words = [
            "",
            "okay",
            "ok:1",
            "code",
            "code:x",
            "status:99",
            "status:x",
            "slow",
            "slow:-1",
            "slow:1:no",
            "rate-limit:soon",
        ]

        for word in words:
            with pytest.raises(ValueError, match=re.escape(f"no such answer: {word!r}")):
                sandbox.script(KEY, word)

    def test_the_old_name_of_the_class_still_works(self) -> None:
        with pytest.warns(DeprecationWarning, match="ScriptedAnswer"):
            assert sandbox_package.Answer is ScriptedAnswer

    def test_each_word_is_used_once_and_the_last_repeats(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "status:503", "status:502", "ok")

        assert [post(sandbox)[0] for _ in range(4)] == [503, 502, 200, 200]

    def test_a_key_without_a_script_answers_ok(self, sandbox: Sandbox) -> None:
        sandbox.script("another", "status:503")

        assert post(sandbox)[0] == 200

    def test_a_new_script_replaces_the_old_one(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "status:503")
        sandbox.script(KEY)

        assert post(sandbox)[0] == 200

    def test_accepted_is_true_for_answers_that_mean_success(self) -> None:
        expected = dict(
            [
                *((word, word in {"ok", "hold", "garbage", "huge", "empty", "echo"}) for word in PLAIN_WORDS),
                ("slow:1", True),
                ("slow:1:status:503", False),
                ("code:0", True),
                ("code:19001", False),
                ("echo:19001", False),
                ("status:204", True),
                ("status:302", False),
                ("status:503", False),
                ("rate-limit:1", False),
            ]
        )

        assert {word: ScriptedAnswer.parse(word).accepted for word in expected} == expected


class TestDeliveries:
    def test_a_delivery_is_recorded_with_key_body_and_headers(self, sandbox: Sandbox) -> None:
        sent_at = time.time()

        post(sandbox)

        [delivery] = sandbox.deliveries()
        assert sent_at <= delivery.at <= time.time()
        assert (delivery.key, delivery.notification_id, delivery.body) == (KEY, 7, BODY)
        assert (delivery.answer, delivery.accepted) == ("ok", True)
        assert delivery.headers["Authorization"] == "Bearer token"

    def test_any_body_is_recorded(self, sandbox: Sandbox) -> None:
        rows = [
            (b"not json", None),
            (b"\xff", None),
            (b"", None),
            (b"[1]", [1]),
            (b'{"notification_id": "x"}', {"notification_id": "x"}),
        ]

        assert [post(sandbox, body=raw)[0] for raw, _ in rows] == [200] * len(rows)

        recorded = [(delivery.body, delivery.notification_id) for delivery in sandbox.deliveries()]
        assert recorded == [(parsed, None) for _, parsed in rows]

    def test_deliveries_can_be_filtered(self, sandbox: Sandbox) -> None:
        sandbox.script("b", "status:503")
        post(sandbox, "a", {"notification_id": 1})
        post(sandbox, "b", {"notification_id": 1})
        post(sandbox, "b", {"notification_id": 2})

        assert [item.key for item in sandbox.deliveries(notification_id=1)] == ["a", "b"]
        assert [item.notification_id for item in sandbox.deliveries("b")] == [1, 2]
        assert [item.key for item in sandbox.deliveries(accepted=True)] == ["a"]
        assert len(sandbox.deliveries("b", 2, False)) == 1

    def test_requests_to_other_paths_are_not_recorded(
        self, sandbox: Sandbox, connection: http.client.HTTPConnection
    ) -> None:
        for method, path in [("POST", "/"), ("POST", f"/flow/api/trigger-webhook/{KEY}/more"), ("GET", f"/{KEY}")]:
            connection.request(method, path)
            response = connection.getresponse()
            response.read()
            assert response.status == 404

        assert sandbox.deliveries() == []

    def test_wait_for_returns_when_enough_has_arrived(self, sandbox: Sandbox) -> None:
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(sandbox.wait_for, 2, 10, key="a")
            for key in "aba":
                post(sandbox, key)

            assert [item.key for item in waiting.result(10)] == ["a", "a"]

    def test_wait_for_accepts_a_condition(self, sandbox: Sandbox) -> None:
        post(sandbox, body={"notification_id": 5})

        deliveries = sandbox.wait_for(lambda items: any(item.notification_id == 5 for item in items))

        assert len(deliveries) == 1

    def test_the_error_of_wait_for_lists_what_arrived(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "status:503")
        post(sandbox)

        with pytest.raises(
            TimeoutError, match=r"0.01 s for 2 deliveries; 1 arrived\n  0123.*: notification 7, status:503"
        ):
            sandbox.wait_for(2, 0.01)


class TestJournal:
    def test_the_journal_has_each_delivery_in_order(self, sandbox: Sandbox, tmp_path: Path) -> None:
        for number in range(5):
            post(sandbox, body={"notification_id": number, "text": "日程 \ud800"})

        assert read_journal(tmp_path / "journal") == sandbox.deliveries()
        assert [item.notification_id for item in sandbox.deliveries()] == list(range(5))

    def test_a_delivery_is_on_disk_before_its_response(
        self, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", lambda _: synced.append(len(read_journal(tmp_path / "journal"))))
        sandbox.script(KEY, "reset")

        with start_request(sandbox) as client, pytest.raises(ConnectionResetError):
            client.recv(1)

        assert synced == [1]

    def test_an_incomplete_last_line_is_ignored(self, tmp_path: Path) -> None:
        path = tmp_path / "journal"
        journal = Journal(path)
        item = Delivery(at=1.0, key="a", notification_id=1, answer="ok", accepted=True, body=None, headers={})
        journal.append(item)
        journal.close()
        with path.open("a") as file:
            file.write('{"at": 2.0, "ke')

        assert read_journal(path) == [item]

    def test_a_missing_journal_is_empty(self, tmp_path: Path) -> None:
        assert read_journal(tmp_path / "none") == []


class TestServing:
    def test_a_connection_serves_many_requests(self, sandbox: Sandbox, connection: http.client.HTTPConnection) -> None:
        connection.connect()
        first_socket = connection.sock

        for _ in range(3):
            assert send(connection).read()
            assert connection.sock is first_socket

    def test_128_requests_can_be_held_at_once(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "hold")
        with ThreadPoolExecutor(128) as pool:
            held = [pool.submit(post, sandbox, KEY, {"notification_id": number}) for number in range(128)]
            sandbox.wait_for(128)

            sandbox.release()

            assert {answer.result(10)[0] for answer in held} == {200}

    def test_stop_closes_all_connections_and_start_uses_the_same_port(self, sandbox: Sandbox) -> None:
        origin = sandbox.origin
        for number, word in enumerate(["hold", "slow:60", "drip", "drip-body"], start=1):
            sandbox.script(KEY, word)
            with start_request(sandbox) as client:
                sandbox.wait_for(number)

                sandbox.stop()

                with contextlib.suppress(ConnectionResetError):
                    while client.recv(65536):
                        pass
            with pytest.raises(ConnectionRefusedError):
                post(sandbox)
            sandbox.start()

        sandbox.script(KEY, "ok")
        assert post(sandbox)[0] == 200
        assert sandbox.origin == origin
        assert len(sandbox.deliveries()) == 5

    def test_stopping_twice_is_harmless(self, sandbox: Sandbox) -> None:
        sandbox.stop()
        sandbox.stop()


@pytest.mark.processes
class TestProcess:
    @pytest.fixture
    def client(self, tmp_path: Path) -> Iterator[SandboxClient]:
        """A client of a sandbox in another process."""
        program = [sys.executable, "-m", "notifications.testing.sandbox"]
        command = [*program, "--port", "0", "--journal", str(tmp_path / "journal")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            yield SandboxClient(process.stdout.readline().strip())
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0

    def deliver(self, client: SandboxClient, key: str, **body: Any) -> int:
        """Send one delivery and return the status of the response."""
        connection = http.client.HTTPConnection(client.origin.removeprefix("http://"), timeout=10)
        with contextlib.closing(connection):
            return send(connection, key, body).status

    def test_another_process_can_control_the_sandbox(self, client: SandboxClient, tmp_path: Path) -> None:
        client.script("a/b", "status:503", "ok")

        assert [self.deliver(client, "a%2Fb", notification_id=number) for number in (1, 2)] == [503, 200]

        assert client.deliveries() == read_journal(tmp_path / "journal")
        assert [item.notification_id for item in client.deliveries("a/b", accepted=True)] == [2]
        assert [item.answer for item in client.deliveries(notification_id=1)] == ["status:503"]
        assert client.deliveries("a") == []

    @pytest.mark.parametrize("key", ["k", None])
    def test_another_process_can_release_requests(self, key: str | None, client: SandboxClient) -> None:
        client.script("k", "hold")
        with ThreadPoolExecutor() as pool:
            held = pool.submit(self.deliver, client, "k")
            eventually(lambda: client.deliveries("k"))

            client.release(key)

            assert held.result(10) == 200

    def test_an_unknown_word_raises_in_the_client(self, client: SandboxClient) -> None:
        with pytest.raises(ValueError, match="no such answer: 'okay'"):
            client.script("k", "okay")
