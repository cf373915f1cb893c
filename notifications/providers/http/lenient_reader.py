"""Reads the responses that llhttp refuses although a receiver that took the message may send them.

RFC 9112 allows more than llhttp does, for example blanks around a chunk extension, and old servers send more than the
RFC allows. The endpoint has the message by then. A response that only has another form must not become a failure,
because the message would be sent again.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from http.client import HTTPException, IncompleteRead
from typing import NamedTuple

_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? +(\d{3})(?:\D.*)?", re.IGNORECASE | re.DOTALL)
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?", re.DOTALL)
MAX_LINE_BYTES = 64 * 1024
"""Bytes of a header line or a line before a chunk."""
_LIST_HEADERS = ("content-encoding", "content-length", "transfer-encoding")
"""Headers on several lines that are one list (RFC 9110, section 5.3)."""


class LenientResponse(NamedTuple):
    """A response as `read_leniently` found it."""

    status: int
    headers: dict[str, str]
    """Values by name in lower case; the first of several with one name."""
    body: bytes


class Received:
    """What a connection has received so far, and how far it is read.

    The methods that read are generators. They yield while the bytes that they need have not been received yet.
    """

    def __init__(self) -> None:
        self.ended = False
        """Whether no more will come."""
        self._data = bytearray()
        self._position = 0

    @property
    def size(self) -> int:
        """Number of bytes received."""
        return len(self._data)

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Add received bytes."""
        self._data += data

    def read(self, size: int) -> Generator[None, None, bytes]:
        """Return `size` bytes; fewer at the end.

        Args:
            size: The number of bytes.
        """
        while len(self._data) - self._position < size and not self.ended:
            yield
        return self._take(self._position + size)

    def read_line(self, limit: int) -> Generator[None, None, bytes]:
        """Return the bytes up to a line feed, at most `limit`; fewer at the end.

        Args:
            limit: The largest number of bytes.
        """
        searched = self._position
        while (found := self._data.find(b"\n", searched, self._position + limit)) < 0:
            searched = len(self._data)
            if self.ended or searched >= self._position + limit:
                return self._take(self._position + limit)
            yield
        return self._take(found + 1)

    def _take(self, end: int) -> bytes:
        taken = bytes(self._data[self._position : end])
        self._position += len(taken)
        return taken


Reading = Generator[None, None, LenientResponse]
"""A response that is being read. It yields while it needs more bytes."""


def read_leniently(stream: Received, max_head_bytes: int, max_body_bytes: int) -> Reading:
    """Read one response. Interim responses (1xx) before it are skipped.

    The length of the body follows RFC 9112, section 6.3: transfer codings first, then Content-Length, then the end of
    the connection. The coding `identity` counts as none, as RFC 2616 had it.

    Args:
        stream: The response from its first byte on.
        max_head_bytes: Bytes that all header lines may have together.
        max_body_bytes: Bytes of the body to read. The rest is left out.

    Raises:
        HTTPException: It is no response, or the connection closed in the middle of it.
    """
    left = max_head_bytes
    while True:
        status, headers, left = yield from _read_head(stream, left)
        if status == 101:
            raise HTTPException("the endpoint switches to another protocol")
        if status >= 200:
            break
    codings = transfer_codings(headers)
    if status in (204, 304):
        body = b""
    elif codings and codings[-1] == "chunked":
        body = yield from _read_chunks(stream, max_body_bytes)
    elif not codings and "content-length" in headers:
        length = min(parse_length(headers["content-length"]), max_body_bytes)
        body = yield from stream.read(length)
        if len(body) < length:
            raise IncompleteRead(body)
    else:
        body = yield from stream.read(max_body_bytes)
    return LenientResponse(status, headers, body)


def add_header(headers: dict[str, str], name: str, value: str) -> None:
    """Add a header. If there are several with one name, the first counts; codings and lengths become one list.

    Args:
        headers: The headers so far.
        name: The name in lower case.
        value: The value.
    """
    if name in _LIST_HEADERS and name in headers:
        headers[name] += f", {value}"
    else:
        headers.setdefault(name, value)


def transfer_codings(headers: Mapping[str, str]) -> list[str]:
    """Return the transfer codings of a response in lower case, in their order, without `identity`."""
    names = (part.partition(";")[0].strip().lower() for part in headers.get("transfer-encoding", "").split(","))
    return [name for name in names if name not in ("", "identity")]


def parse_length(value: str) -> int:
    """Return a Content-Length. It may be repeated with one value (RFC 9110, section 8.6), and a unit may follow.

    Raises:
        HTTPException: It is no number, or several different ones.
    """
    lengths = {part.strip() for part in value.split(",")}
    match = re.fullmatch(r"\+?([0-9]{1,18})(?:[^0-9].*)?", lengths.pop())
    if lengths or not match:
        raise HTTPException("the length of the body is unclear")
    return int(match[1])


def _read_head(stream: Received, left: int) -> Generator[None, None, tuple[int, dict[str, str], int]]:
    match = _STATUS_LINE.fullmatch((yield from _read_line(stream)))
    if not match or int(match[1]) < 100:
        raise HTTPException("not an HTTP response")
    headers: dict[str, str] = {}
    name = ""
    while line := (yield from _read_line(stream)):
        if (left := left - len(line)) < 0:
            raise HTTPException("head too long")
        text = line.decode("latin-1")
        if text[0] in " \t":  # the line before goes on
            headers[name] = f"{headers.get(name, '')} {text.strip()}"
            continue
        name, colon, value = text.partition(":")
        name, value = name.strip().lower(), value.strip()
        if colon:
            add_header(headers, name, value)
    return int(match[1]), headers, left


def _read_chunks(stream: Received, max_body_bytes: int) -> Generator[None, None, bytes]:
    body = bytearray()
    while len(body) < max_body_bytes:
        match = _CHUNK_SIZE.fullmatch((yield from _read_line(stream)))
        if not match:
            raise HTTPException("the size of a chunk is unclear")
        size = int(match[1], 16)
        if not size:
            while (yield from _read_line(stream)):  # trailers
                pass
            break
        wanted = min(size, max_body_bytes - len(body))
        chunk = yield from stream.read(wanted)
        body += chunk
        if len(chunk) < wanted:
            raise IncompleteRead(bytes(body))
        if wanted == size and (yield from _read_line(stream)):
            raise HTTPException("a chunk is longer than its size")
    return bytes(body)


def _read_line(stream: Received) -> Generator[None, None, bytes]:
    line = yield from stream.read_line(MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise HTTPException("a line is too long") if len(line) == MAX_LINE_BYTES else IncompleteRead(line)
    return line.rstrip(b"\r\n")
