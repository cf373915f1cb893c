"""Responses are read within bounds, and a connection is reusable only if no unread data is left on it."""

from __future__ import annotations

from http.client import HTTPException

import pytest

from notifications.providers.http.response_reader import MAX_HEAD_BYTES, ResponseReader

OK = b"HTTP/1.1 200 OK\r\n"
TWO = b"Content-Length: 2\r\n\r\nhi"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
MAX_BODY_BYTES = 1000

REUSABLE = {
    "length": OK + TWO,
    "chunks": OK + CHUNKS + b"0\r\n\r\n",
    "chunks with an extension and a trailer": OK
    + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\nA: b\r\n\r\n",
    "an announcement before": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + OK + TWO,
    "an upgrade that is only offered": OK + b"Upgrade: h2c\r\nConnection: Upgrade\r\n" + TWO,
    "no reason phrase": b"HTTP/1.1 200\r\n" + TWO,
    "bare line feeds": (OK + TWO).replace(b"\r", b""),
    "length and chunks": OK + b"Content-Length: 7\r\n" + CHUNKS + b"0\r\n\r\n",
    "a header that is not ASCII": OK + "A: 中\r\n".encode() + TWO,
}
NOT_REUSABLE = {
    "it closes": OK + b"Connection: close\r\n" + TWO,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + TWO,
    "the end is the end of the connection": OK + b"\r\nhi",
    "another answer follows": OK + TWO + OK + b"Content-Length: 2\r\nA: b\r\n\r\nno",
    "half of another follows": OK + TWO + b"HTTP/1.1 500 No",
    "something follows": OK + TWO + b"junk",
}
INVALID = {
    "nothing": b"",
    "half a head": OK + b"Content-Le",
    "half a body": OK + b"Content-Length: 3\r\n\r\nhi",
    "half of the chunks": OK + CHUNKS,
    "another protocol": b"SSH-2.0 hello\r\n\r\n",
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n",
    "two lengths": OK + b"Content-Length: 3\r\n" + TWO,
    "a head without end": OK + b"A: b\r\n" * (MAX_HEAD_BYTES // 4),
    "announcements without end": b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEAD_BYTES // 16),
}


def read(response: bytes, *, dripping: bool = False) -> ResponseReader:
    """Read a response after which the other end closes the connection, in large pieces or byte by byte."""
    reader = ResponseReader(MAX_BODY_BYTES)
    size = 1 if dripping else 16 * 1024
    pieces = [response[start : start + size] for start in range(0, len(response), size)]
    if not any(reader.feed(piece) for piece in pieces):
        reader.end()
    reader.close()
    return reader


@pytest.mark.parametrize("dripping", [False, True])
class TestResponseReader:
    def test_a_complete_response_leaves_the_connection_reusable(self, dripping: bool) -> None:
        for name, response in REUSABLE.items():
            reader = read(response, dripping=dripping)

            assert (reader.status, bytes(reader.body), reader.reusable) == (200, b"hi", True), name

    def test_a_response_is_read_also_if_the_connection_is_not_reusable(self, dripping: bool) -> None:
        for name, response in NOT_REUSABLE.items():
            reader = read(response, dripping=dripping)

            assert (reader.status, bytes(reader.body)) == (200, b"hi"), name
            # Byte by byte, the reader stops before the extra data. The connection pool sees it before the next request.
            assert not reader.reusable or (dripping and response.startswith(OK + TWO)), name

    def test_invalid_and_incomplete_responses_raise(self, dripping: bool) -> None:
        for name, response in INVALID.items():
            try:
                reader = read(response, dripping=dripping)
            except HTTPException:
                continue
            pytest.fail(f"{name}: read as {reader.status} {bytes(reader.body)!r}")


def test_a_long_body_is_truncated() -> None:
    reader = read(OK + b"Content-Length: 9999999\r\n\r\n" + b"x" * 5000)

    assert (len(reader.body), reader.reusable) == (MAX_BODY_BYTES, False)


def test_one_byte_chunks_are_read_completely() -> None:
    chunks = b"1\r\nx\r\n" * (MAX_BODY_BYTES - 1)
    reader = read(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")

    assert (bytes(reader.body), reader.reusable) == (b"x" * (MAX_BODY_BYTES - 1), True)


def test_endless_trailers_are_ignored_and_not_read_to_their_end() -> None:
    trailers = b"".join(b"A%d: b\r\n" % number for number in range(MAX_HEAD_BYTES))
    reader = read(OK + CHUNKS + b"0\r\n" + trailers)

    assert (reader.status, bytes(reader.body), reader.reusable) == (200, b"hi", False)
    assert reader.headers == {"transfer-encoding": "chunked"}


def test_header_names_are_lower_case() -> None:
    reader = read(OK + b"Retry-After: 7\r\n" + TWO)

    assert reader.headers == {"retry-after": "7", "content-length": "2"}
