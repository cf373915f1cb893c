"""Reads an HTTP response from a socket with bounded size; llhttp parses it. The socket bounds the time."""

from __future__ import annotations

import socket
from http.client import HTTPException, IncompleteRead

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_RESPONSE_BYTES = 64 * 1024
"""Bytes of a response body that are read."""
MAX_HEAD_BYTES = 64 * 1024
"""Bytes that a response may have before its body."""
_RECEIVE_BYTES = 16 * 1024
"""Bytes that one read asks the socket for."""
_MAX_WIRE_BYTES_PER_BODY_BYTE = 8
"""Bytes to read from the socket per byte of body that is kept. A chunk of one byte takes six."""


class ResponseReader:
    """Reads one response. The results are the attributes `status`, `headers` and `body`.

    The keys of `headers` are lower case. `reusable` is True if the connection may carry another request: the response
    was complete, nothing followed it, and the endpoint keeps the connection open.

    Args:
        max_body_bytes: Bytes of the body to keep. The rest is not read.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.reusable = False
        self._max_body_bytes = max_body_bytes
        self._max_received_bytes = MAX_HEAD_BYTES + _MAX_WIRE_BYTES_PER_BODY_BYTE * max_body_bytes
        self._received_bytes = 0
        self._in_head = True
        self._complete = False
        self._extra_data = False
        self._keep_alive = False

    def read(self, sock: socket.socket) -> None:
        """Read until the response is complete or `max_body_bytes` are read.

        Args:
            sock: The connected socket. Its timeout bounds each read.

        Raises:
            HTTPException: The data is no HTTP response, or the connection closed in the middle of it.
            OSError: A network error or a timeout.
        """
        self._parser = HttpResponseParser(self)
        # The endpoint has received the message. A response with small HTTP errors must not turn that into a failure.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
            lenient_optional_crlf_after_chunk=True,
        )
        try:
            self._read(sock)
            self.reusable = self._complete and self._keep_alive and not self._extra_data
        finally:
            del self._parser  # breaks the reference cycle, which only the garbage collector would free
        del self.body[self._max_body_bytes :]

    def _read(self, sock: socket.socket) -> None:
        buffer = memoryview(bytearray(_RECEIVE_BYTES))
        while not self._enough():
            count = sock.recv_into(buffer)
            self._received_bytes += count
            if not count:
                self._handle_close()
                return
            try:
                self._parser.feed_data(buffer[:count])
            except (HttpParserError, HttpParserUpgrade) as error:
                if not self._enough():
                    raise HTTPException(type(error).__name__) from None
                self._extra_data = True
            if self._in_head and self._received_bytes > MAX_HEAD_BYTES:
                raise HTTPException("head too long")

    def _enough(self) -> bool:
        # One-byte chunks and endless trailers have nearly no body: bound the received bytes too.
        too_long = not self._in_head and self._received_bytes > self._max_received_bytes
        return self._complete or too_long or len(self.body) >= self._max_body_bytes

    def _handle_close(self) -> None:
        # Closing the connection ends a response only if it announces neither a length nor chunks.
        if self._in_head or "content-length" in self.headers or "transfer-encoding" in self.headers:
            raise IncompleteRead(bytes(self.body))

    # The parser calls the methods below. It also calls them for data that follows a complete response.

    def on_message_begin(self) -> None:
        """Note whether another response follows a complete one."""
        self._extra_data = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; the first of several with one name counts. Trailers are ignored."""
        if self._in_head:
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """Keep the status."""
        if not self._complete:
            self.status = self._parser.get_status_code()
            self._in_head = False

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if not self._complete:
            self.body += body

    def on_message_complete(self) -> None:
        """End the response, unless it is an interim (1xx) response."""
        if self._complete:
            return
        if 100 <= self.status < 200:
            self.headers.clear()
            self._in_head = True
        else:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
