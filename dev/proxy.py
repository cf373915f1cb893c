"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65536
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of zero: closing sends RST."""

Mode = Literal["pass", "refuse", "silent", "no-replies"]


@dataclass(eq=False)
class _Pair:
    """One client and the server it is connected to."""

    client: socket.socket
    server: socket.socket
    doomed: threading.Event = field(default_factory=threading.Event)
    """The request that we wait for has passed: the reply to it gets lost."""

    def reset(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RD)  # wakes its reader and, unlike SHUT_WR, sends the peer nothing
            end.close()


class Proxy:
    """Stands between clients and a server on 127.0.0.1.

    Args:
        port: where the server listens.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.mode: Mode = "pass"
        """refuse: no new connections; silent: nothing passes, connections stay; no-replies: only requests pass."""
        self.delay = 0.0
        """Seconds each chunk waits."""
        self.lost_replies = 0
        """How many replies lose_reply_to() and lose_reply_with() have lost."""
        self._losing: list[bytes] = []
        self._losing_replies: list[bytes] = []
        self._pairs: set[_Pair] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._closing = False
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def url(self, url: str) -> str:
        """Return the server's address with the proxy's port in it.

        Args:
            url: as clients would use it without the proxy.
        """
        parts = urlsplit(url)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        return urlunsplit(parts._replace(netloc=f"{user}127.0.0.1:{self.port}"))

    def lose_reply_to(self, request: bytes) -> None:
        """Let the next request with these bytes reach the server, then lose its reply and reset the connection.

        Args:
            request: bytes of the request, such as b"COMMIT".
        """
        with self._lock:
            self._losing.append(request)

    def lose_reply_with(self, reply: bytes) -> None:
        """Lose the next reply with these bytes, and reset its connection.

        Args:
            reply: bytes of the reply.
        """
        with self._lock:
            self._losing_replies.append(reply)

    def reset_all(self) -> None:
        """Reset every connection that is open."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            pair.reset()

    def close(self) -> None:
        """Stop to listen and reset what is open."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            try:
                if self.mode == "refuse":
                    raise ConnectionRefusedError
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = _Pair(client, server)
            with self._lock:
                self._pairs.add(pair)
            for pump in (self._requests, self._replies):
                threading.Thread(target=self._run, args=(pump, pair), daemon=True).start()

    def _run(self, pump: object, pair: _Pair) -> None:
        with contextlib.suppress(OSError):
            pump(pair)  # type: ignore[operator]
        with self._lock:
            self._pairs.discard(pair)
        pair.reset()

    def _requests(self, pair: _Pair) -> None:
        while data := pair.client.recv(CHUNK):
            self._wait()
            with self._lock:
                for request in self._losing:
                    if request in data:
                        self._losing.remove(request)
                        pair.doomed.set()
                        break
            if self.mode != "silent":
                pair.server.sendall(data)

    def _replies(self, pair: _Pair) -> None:
        while data := pair.server.recv(CHUNK):
            self._wait()
            if pair.doomed.is_set() or self._loses(data):
                self.lost_replies += 1
                return
            if self.mode not in ("silent", "no-replies"):
                pair.client.sendall(data)

    def _loses(self, data: bytes) -> bool:
        with self._lock:
            for reply in self._losing_replies:
                if reply in data:
                    self._losing_replies.remove(reply)
                    return True
        return False

    def _wait(self) -> None:
        if self.delay:
            time.sleep(self.delay)
