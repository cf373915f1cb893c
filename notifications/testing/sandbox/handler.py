"""One connection to the sandbox: reads requests, records deliveries, and gives the scripted answer."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import http.client
import json
import os
import re
import select as readiness
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from notifications.testing.sandbox import webhook_types

if TYPE_CHECKING:
    from notifications.testing.sandbox.inbox import Arrival
    from notifications.testing.sandbox.server import Sandbox, Server

CONTROL = re.compile(r"/_control/([^/]+)(/release)?")
HOLD_SECONDS = 120.0
DRIP_SECONDS = 0.2
DRIP_BYTES = 3000  # ten minutes: longer than any client should wait
HUGE_BYTES = 10 * 1024 * 1024
_JSON = "application/json; charset=utf-8"


class Handler(BaseHTTPRequestHandler):
    """Serves one connection, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox this connection belongs to."""
        return self.server.sandbox

    def do_POST(self) -> None:
        """Take a delivery, or release requests that are on hold."""
        body = self._read_body()
        path = urlsplit(self.path).path
        if found := webhook_types.find(path):
            webhook_type, key = found
            arrival = self.sandbox.arrive(key, body, dict(self.headers.items()), webhook_type)
            self._answer(arrival)
        elif path == "/_release":
            self.sandbox.release()
            self._reply_json(200, None)
        elif (control := CONTROL.fullmatch(path)) and control[2]:
            self.sandbox.release(unquote(control[1]))
            self._reply_json(200, None)
        else:
            self._reply_json(404, "no such path")

    def do_PUT(self) -> None:
        """Set the script of a key."""
        body = self._read_body()
        control = CONTROL.fullmatch(urlsplit(self.path).path)
        if control is None or control[2]:
            return self._reply_json(404, "no such path")
        try:
            words = json.loads(body)
            if not isinstance(words, list):
                raise ValueError("not a list of words")
            self.sandbox.script(unquote(control[1]), *map(str, words))
        except ValueError as error:
            return self._reply_json(400, str(error))
        self._reply_json(200, None)

    def do_GET(self) -> None:
        """List deliveries."""
        url = urlsplit(self.path)
        if url.path != "/_deliveries":
            return self._reply_json(404, "no such path")
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            number = int(query["notification_id"]) if "notification_id" in query else None
        except ValueError as error:
            return self._reply_json(400, str(error))
        accepted = {"true": True, "false": False}.get(query.get("accepted", ""))
        found = self.sandbox.deliveries(query.get("key"), number, accepted)
        self._reply_json(200, [dataclasses.asdict(delivery) for delivery in found])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class calls it so
        """Print nothing: the journal says what arrived."""

    def _answer(self, arrival: Arrival) -> None:
        answer = arrival.answer
        if answer.wait and self.sandbox.stopping.wait(answer.wait):
            self.close_connection = True
            return
        match answer.kind:
            case "ok" | "repeated":
                self._reply_code(0, "success")
            case "code":
                self._reply_code(int(answer.number), answer.message)
            case "status":
                self._reply(int(answer.number), b"" if answer.number in (204, 304) else b"sandbox\n", "text/plain")
            case "rate-limit":
                seconds = str(int(answer.number))
                body = json.dumps({"code": 99991400, "msg": "request trigger frequency limit"}).encode()
                # Feishu's gateway is documented with the second header only.
                self._reply(429, body, _JSON, {"Retry-After": seconds, "x-ogw-ratelimit-reset": seconds})
            case "hold":
                self.sandbox.hold(arrival, HOLD_SECONDS, self._client_left)
                self._reply_late()
            case "garbage":
                self._reply(200, b"\x00\xff\xfe{not json\x80\x00", _JSON)
            case "empty":
                self._reply(200, b"", "text/plain")
            case "redirect":
                self._reply(302, b"", "text/plain", {"Location": "http://127.0.0.1:1/"})
            case "echo":
                self._echo(int(answer.number))
            case "reset":
                self._reset()
            case _:
                self._stream(answer.kind)

    def _echo(self, code: int) -> None:
        """Tell back what was sent, as debugging endpoints do: in the status line, headers and body, also escaped."""
        sent = f"{self.path} {self.headers.get('Authorization', '').removeprefix('Bearer ')}"
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in sent)
        body = f'{{"code": {code}, "msg": {json.dumps(sent)}, "{quote(sent, safe="")}": ["{escaped}"]}}'
        lines = [
            f"HTTP/1.1 200 {sent}",
            f"Content-Length: {len(body)}",
            f"Set-Cookie: sent={quote(sent)}; Path=/",
            f"Retry-After: {sent}",
            f"X-Sent: {sent}",
        ]
        self.wfile.write("\r\n".join([*lines, "", body]).encode())

    def _reply_late(self) -> None:
        if self.sandbox.stopping.is_set():
            self.close_connection = True
        else:
            self._reply_code(0, "success")

    def _stream(self, kind: str) -> None:
        """ScriptedAnswer without an end in sight; the connection is of no use afterwards."""
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client left, as it should
            if kind == "huge":
                self.wfile.write(_head(200, HUGE_BYTES, _JSON, {}))
                for _ in range(HUGE_BYTES // 65536):
                    self.wfile.write(b"x" * 65536)
            elif kind == "drip-body":
                self.wfile.write(_head(200, 1_000_000, _JSON, {}))
                self._drip(b"x" * DRIP_BYTES)
            else:
                self._drip(b"HTTP/1.1 200 OK\r\nX-Drip: ".ljust(DRIP_BYTES, b"x"))

    def _drip(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            if self.sandbox.stopping.wait(DRIP_SECONDS):
                return

    def _reset(self) -> None:
        self.close_connection = True
        # Closing with a linger time of zero sends RST. The descriptor itself: socket.close() waits for its files.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def _client_left(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            ready, _, _ = readiness.select([self.connection], [], [], 0)
            return bool(ready) and self.connection.recv(1, socket.MSG_PEEK) == b""
        return True

    def _read_body(self) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client left in the midst of its request")
        return body

    def _reply_code(self, code: int, message: str) -> None:
        self._reply_json(200, {"code": code, "msg": message})

    def _reply_json(self, status: int, value: object) -> None:
        self._reply(status, json.dumps(value).encode(), _JSON)

    def _reply(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        headers = {"Date": email.utils.formatdate(time.time() + self.sandbox.ahead, usegmt=True)} | (headers or {})
        try:
            self.wfile.write(_head(status, len(body), content_type, headers) + body)
        except OSError:
            self.close_connection = True


def _head(status: int, length: int, content_type: str, headers: dict[str, str]) -> bytes:
    phrase = http.client.responses.get(status, "Scripted")
    headers = {"Content-Type": content_type, "Content-Length": str(length)} | headers
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()
