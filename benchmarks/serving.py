"""The receiver on asyncio: waits, hangs, and notes when each delivery came."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from benchmarks.wire import ANSWER

QUICK, SLOW, CRAWLING, HANGING = "quickquick", "slowslow", "crawlcrawl", "hanghang"
"""Keys of its endpoints: answers at once, after SLOW_SECONDS, after CRAWLING_SECONDS, never."""
SLOW_SECONDS = 0.2
CRAWLING_SECONDS = 2.0
READY = "receiving"


class Protocol(asyncio.Protocol):
    """HTTP/1.1 for bodies that follow their head closely, which is all that our contenders send."""

    hits = 0
    arrivals: list[tuple[int, bytes]] = []
    """All connections share both."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = b""
        self.began = 0

    def data_received(self, data: bytes) -> None:
        if not self.buffer:
            self.began = time.monotonic_ns()
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            size = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
            self.handle(head[: head.find(b"\r\n")], body)

    def handle(self, line: bytes, body: bytes) -> None:
        if line.startswith(b"get /hits"):
            self.answer(b"%d" % Protocol.hits)
        elif line.startswith(b"get /arrivals"):
            self.answer(
                json.dumps([(at, json.loads(raw).get("preview_id", "")) for at, raw in Protocol.arrivals]).encode()
            )
            Protocol.arrivals.clear()
        else:
            Protocol.hits += 1
            Protocol.arrivals.append((self.began, body))
            if SLOW.encode() in line:
                asyncio.get_running_loop().call_later(SLOW_SECONDS, self.answer, ANSWER)
            elif CRAWLING.encode() in line:
                asyncio.get_running_loop().call_later(CRAWLING_SECONDS, self.answer, ANSWER)
            elif HANGING.encode() not in line:
                self.answer(ANSWER)

    def answer(self, body: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )


async def receive(port: int) -> None:
    """Receive until cancelled."""
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port, backlog=4096)
    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
    await server.serve_forever()


def serve(port: int) -> None:
    """Receive until killed."""
    import uvloop

    uvloop.run(receive(port))
