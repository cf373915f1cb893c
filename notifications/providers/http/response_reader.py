"""Reading an answer off a socket: bounded in time by the socket, in size here; parsed by llhttp."""

from __future__ import annotations

import socket
from http.client import HTTPException, IncompleteRead

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEAD_BYTES = 64 * 1024
"""Bytes that come before a body; an answer with more of them is refused."""
_AT_ONCE = 16 * 1024
_WORDY = 8
"""Bytes of an answer for each byte of body that is kept, at most; a chunk of one byte takes six."""


class Reader:
    """Reads one answer. `status`, `headers` (by name in lower case) and `body` are what came of it.

    limit: bytes of a body that are kept; the rest is never asked for. `reusable` tells whether the connection may take
    another request: the answer came to its end, nothing came after it, and the other end does not close.
    """

    def __init__(self, limit: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.reusable = False
        self._limit = limit
        self._taken = 0
        self._head = True
        self._complete = False
        self._surplus = False
        self._kept_open = False

    def read(self, sock: socket.socket) -> None:
        """Read until the answer ends or is long enough.

        Raises HTTPException for what is no answer or was cut off, OSError for the network's sake.
        """
        self._parser = HttpResponseParser(self)
        # A message that arrived must not count as failed because its receiver writes HTTP carelessly.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
            lenient_optional_crlf_after_chunk=True,
        )
        try:
            self._read(sock)
            self.reusable = self._complete and self._kept_open and not self._surplus
        finally:
            del self._parser  # it refers to us: the two would wait for the garbage collector
        del self.body[self._limit :]

    def _read(self, sock: socket.socket) -> None:
        buffer = memoryview(bytearray(_AT_ONCE))
        while not self._enough():
            count = sock.recv_into(buffer)
            self._taken += count
            if not count:
                self._ended()
                return
            try:
                self._parser.feed_data(buffer[:count])
            except (HttpParserError, HttpParserUpgrade) as error:
                if not self._enough():
                    raise HTTPException(type(error).__name__) from None
                self._surplus = True
            if self._head and self._taken > MAX_HEAD_BYTES:
                raise HTTPException("head too long")

    def _enough(self) -> bool:
        # Chunks of a byte each, or trailers without end: however little of it is body, it is not read for ever.
        wordy = not self._head and self._taken > MAX_HEAD_BYTES + _WORDY * self._limit
        return self._complete or wordy or len(self.body) >= self._limit

    def _ended(self) -> None:
        """The other end has closed: that is how an answer without a length ends, and no other."""
        if self._head or "content-length" in self.headers or "transfer-encoding" in self.headers:
            raise IncompleteRead(bytes(self.body))

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head:  # else a trailer
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        if not self._complete:
            self.status = self._parser.get_status_code()
            self._head = False

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self.body += body

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if 100 <= self.status < 200:  # only announces the answer
            self.headers.clear()
            self._head = True
        else:
            self._complete = True
            self._kept_open = self._parser.should_keep_alive()
