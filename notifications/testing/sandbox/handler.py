"""One connection to the sandbox: reads requests, records deliveries, and sends the scripted answers."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import http.client
import json
import os
import re
import select
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from notifications.testing.sandbox import webhook_types
from notifications.testing.sandbox.inbox import Arrival, Inbox

CONTROL_PATH = re.compile(r"/_control/([^/]+)(/release)?")
MAX_HOLD_SECONDS = 120.0
DRIP_INTERVAL_SECONDS = 0.2
DRIP_BYTES = 3000  # 10 minutes at DRIP_INTERVAL_SECONDS: longer than any client should wait
HUGE_BYTES = 10 * 1024 * 1024
_JSON = "application/json; charset=utf-8"


class Handler(BaseHTTPRequestHandler):
    """Serves one connection in a thread of its own.

    Args:
        inbox: The scripts and deliveries of the sandbox.
        *connection: The arguments that `socketserver` passes to a request handler.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, inbox: Inbox, *connection: Any) -> None:
        self.inbox = inbox
        super().__init__(*connection)  # serves the whole connection

    def do_POST(self) -> None:
        """Record a delivery and answer it, or release held requests."""
        body = self._read_body()
        path = urlsplit(self.path).path
        if match := webhook_types.find(path):
            webhook_type, key = match
            arrival = self.inbox.arrive(key, body, dict(self.headers.items()), webhook_type)
            self._answer(arrival)
        elif path == "/_release":
            self.inbox.release()
            self._reply_json(200, None)
        elif (control := CONTROL_PATH.fullmatch(path)) and control[2]:
            self.inbox.release(unquote(control[1]))
            self._reply_json(200, None)
        else:
            self._reply_json(404, "no such path")

    def do_PUT(self) -> None:
        """Set the script of a key."""
        body = self._read_body()
        control = CONTROL_PATH.fullmatch(urlsplit(self.path).path)
        if control is None or control[2]:
            return self._reply_json(404, "no such path")
        try:
            words = json.loads(body)
            if not isinstance(words, list):
                raise ValueError("not a list of words")
            self.inbox.script(unquote(control[1]), *map(str, words))
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
        deliveries = self.inbox.deliveries(query.get("key"), number, accepted)
        self._reply_json(200, [dataclasses.asdict(delivery) for delivery in deliveries])

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Print nothing: the journal has the requests."""

    def _answer(self, arrival: Arrival) -> None:
        answer = arrival.answer
        if answer.wait and self.inbox.stopping.wait(answer.wait):
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
                # The vendor's documentation has only the second header.
                self._reply(429, body, _JSON, {"Retry-After": seconds, "x-ogw-ratelimit-reset": seconds})
            case "hold":
                self.inbox.hold(arrival, MAX_HOLD_SECONDS, self._client_left)
                self._reply_unless_stopping()
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
        """Send the request back in the status line, headers and body, plain and escaped, as debugging endpoints do."""
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

    def _reply_unless_stopping(self) -> None:
        if self.inbox.stopping.is_set():
            self.close_connection = True
        else:
            self._reply_code(0, "success")

    def _stream(self, kind: str) -> None:
        """Send a response that a client should not read to its end. Then close the connection."""
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client closed the connection
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
            if self.inbox.stopping.wait(DRIP_INTERVAL_SECONDS):
                return

    def _reset(self) -> None:
        self.close_connection = True
        # A linger time of 0 makes close() send RST. os.close() closes the descriptor at once; socket.close() would wait
        # until the files of the connection are closed too.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def _client_left(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            ready, _, _ = select.select([self.connection], [], [], 0)
            return bool(ready) and self.connection.recv(1, socket.MSG_PEEK) == b""
        return True

    def _read_body(self) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client closed the connection before the end of its request")
        return body

    def _reply_code(self, code: int, message: str) -> None:
        self._reply_json(200, {"code": code, "msg": message})

    def _reply_json(self, status: int, value: object) -> None:
        self._reply(status, json.dumps(value).encode(), _JSON)

    def _reply(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        headers = {"Date": email.utils.formatdate(time.time() + self.inbox.ahead, usegmt=True)} | (headers or {})
        try:
            self.wfile.write(_head(status, len(body), content_type, headers) + body)
        except OSError:
            self.close_connection = True


def _head(status: int, length: int, content_type: str, headers: dict[str, str]) -> bytes:
    phrase = http.client.responses.get(status, "Scripted")
    headers = {"Content-Type": content_type, "Content-Length": str(length)} | headers
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()
