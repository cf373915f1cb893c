"""Reads an HTTP response of bounded size from the bytes of a connection; llhttp parses it.

What llhttp refuses is read again from its first byte by `lenient_reader`.
"""

from __future__ import annotations

from http.client import HTTPException, IncompleteRead
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from notifications.providers.http.lenient_reader import Reading, Received, add_header, read_leniently

MAX_RESPONSE_BYTES = 64 * 1024
"""Bytes of a response body that are read."""
MAX_HEAD_BYTES = 64 * 1024
"""Bytes that a response may have before its body."""
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
        self._received = bytearray()
        self._unclear = False
        self._reading: Reading | None = None
        """The second reading, of a response that llhttp refuses."""
        self._in_head = True
        self._complete = False
        self._extra_data = False
        self._keep_alive = False
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        # The endpoint has received the message. A response with small HTTP errors must not turn that into a failure.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
            lenient_optional_crlf_after_chunk=True,
        )

    def feed(self, data: bytes | memoryview) -> bool:
        """Take the next bytes of the connection.

        Args:
            data: What one read returned; not empty.

        Returns:
            True if the response is complete, or if as much of it is read as is kept.

        Raises:
            HTTPException: The data is no HTTP response.
        """
        if self._reading:
            return self._read_leniently(data)
        self._received += data
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]
        except (HttpParserError, HttpParserUpgrade):
            self._unclear = self._unclear or not self._enough()
            self._extra_data = True
        if self._unclear:
            self._stream = Received()
            self._reading = read_leniently(self._stream, MAX_HEAD_BYTES, self._max_body_bytes)
            return self._read_leniently(self._received)
        if self._in_head and len(self._received) > MAX_HEAD_BYTES:
            raise HTTPException("head too long")
        return self._enough() and self._finish()

    def end(self) -> None:
        """Note that the other side closed the connection, which may be the end of the response.

        Raises:
            HTTPException: The response is not complete.
        """
        if self._reading:
            self._stream.ended = True
            self._read_leniently(b"")
        # Closing the connection ends a response only if it announces neither a length nor chunks.
        elif self._in_head or "content-length" in self.headers or "transfer-encoding" in self.headers:
            raise IncompleteRead(bytes(self.body))
        else:
            self._finish()

    def close(self) -> None:
        """Break the reference cycle with the parser, which only the garbage collector would free."""
        self._parser = None

    def _finish(self) -> bool:
        self.reusable = self._complete and self._keep_alive and not self._extra_data
        del self.body[self._max_body_bytes :]
        if self.status < 100:
            raise HTTPException("not an HTTP status")
        return True

    def _read_leniently(self, data: bytes | bytearray | memoryview) -> bool:
        left = self._max_received_bytes - self._stream.size
        self._stream.add(data[:left])
        self._stream.ended = self._stream.ended or len(data) >= left
        try:
            next(cast("Reading", self._reading))
        except StopIteration as complete:
            self.status, self.headers, body = complete.value
        else:
            return False
        self.body = bytearray(body)
        self._complete = True
        self._keep_alive = False
        return self._finish()

    def _enough(self) -> bool:
        # One-byte chunks and endless trailers have nearly no body: bound the received bytes too.
        too_long = not self._in_head and len(self._received) > self._max_received_bytes
        return self._complete or too_long or len(self.body) >= self._max_body_bytes

    # The parser calls the methods below. It also calls them for data that follows a complete response.

    def on_message_begin(self) -> None:
        """Note whether another response follows a complete one."""
        self._extra_data = self._complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Trailers are ignored.

        llhttp ignores a length whose name is followed by a blank, and ends a body by the end of the connection if it
        knows the transfer codings otherwise.
        """
        if self._in_head:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            add_header(self.headers, key, text)
            self._unclear |= key[-1:].isspace() or (key == "transfer-encoding" and text.lower() != "chunked")

    def on_headers_complete(self) -> None:
        """Keep the status."""
        if not self._complete:
            self.status = self._parser.get_status_code()  # type: ignore[union-attr]
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
            self._keep_alive = self._parser.should_keep_alive()  # type: ignore[union-attr]
