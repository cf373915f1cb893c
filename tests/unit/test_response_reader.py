"""Answers are read whole, within bounds, and a connection is used again only when nothing is left on it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPException
from typing import cast

import pytest

from notifications.providers.http.response_reader import MAX_HEAD_BYTES, ResponseReader

OK = b"HTTP/1.1 200 OK\r\n"
TWO = b"Content-Length: 2\r\n\r\nhi"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
LIMIT = 1000

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
USED_UP = {
    "it closes": OK + b"Connection: close\r\n" + TWO,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + TWO,
    "the end is the end of the connection": OK + b"\r\nhi",
    "another answer follows": OK + TWO + OK + b"Content-Length: 2\r\nA: b\r\n\r\nno",
    "half of another follows": OK + TWO + b"HTTP/1.1 500 No",
    "something follows": OK + TWO + b"junk",
}
NO_ANSWER = {
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


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        yield ours, theirs


class Dripping:
    """Gives one byte at a time."""

    def __init__(self, answer: bytes) -> None:
        self.left = answer

    def recv_into(self, buffer: memoryview) -> int:
        count = min(1, len(self.left))
        buffer[:count], self.left = self.left[:count], self.left[count:]
        return count


def read(ends: tuple[socket.socket, socket.socket], answer: bytes, *, dripping: bool = False) -> ResponseReader:
    """Return what was read of an answer after which the other end closes."""
    ours, theirs = ends
    reader = ResponseReader(LIMIT)
    if dripping:
        reader.read(cast(socket.socket, Dripping(answer)))
    else:
        writer = threading.Thread(target=_write, args=(theirs, answer))
        writer.start()
        try:
            reader.read(ours)
        finally:
            ours.close()
            writer.join()
    return reader


def _write(theirs: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):  # the reader has had enough
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("dripping", [False, True])
class TestReader:
    @pytest.mark.parametrize("answer", REUSABLE.values(), ids=REUSABLE)
    def test_a_whole_answer_leaves_the_connection_for_another(
        self, ends: tuple[socket.socket, socket.socket], answer: bytes, dripping: bool
    ) -> None:
        reader = read(ends, answer, dripping=dripping)

        assert (reader.status, bytes(reader.body), reader.reusable) == (200, b"hi", True)

    @pytest.mark.parametrize("answer", USED_UP.values(), ids=USED_UP)
    def test_an_answer_that_leaves_no_clean_connection_is_read_all_the_same(
        self, ends: tuple[socket.socket, socket.socket], answer: bytes, dripping: bool
    ) -> None:
        reader = read(ends, answer, dripping=dripping)

        assert (reader.status, bytes(reader.body)) == (200, b"hi")
        # What follows later is on the connection when it is taken up again: `is_connected` sees it there.
        assert not reader.reusable or (dripping and answer.startswith(OK + TWO))

    @pytest.mark.parametrize("answer", NO_ANSWER.values(), ids=NO_ANSWER)
    def test_what_is_no_answer_or_half_of_one_is_refused(
        self, ends: tuple[socket.socket, socket.socket], answer: bytes, dripping: bool
    ) -> None:
        with pytest.raises(HTTPException):
            read(ends, answer, dripping=dripping)


def test_no_more_is_read_than_is_kept(ends: tuple[socket.socket, socket.socket]) -> None:
    reader = read(ends, OK + b"Content-Length: 9999999\r\n\r\n" + b"x" * 5000)

    assert (len(reader.body), reader.reusable) == (LIMIT, False)


def test_chunks_of_a_byte_are_read_whole(ends: tuple[socket.socket, socket.socket]) -> None:
    reader = read(ends, OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * (LIMIT - 1) + b"0\r\n\r\n")

    assert (bytes(reader.body), reader.reusable) == (b"x" * (LIMIT - 1), True)


def test_trailers_without_end_are_neither_kept_nor_read_for_ever(ends: tuple[socket.socket, socket.socket]) -> None:
    trailers = b"".join(b"A%d: b\r\n" % number for number in range(MAX_HEAD_BYTES))
    reader = read(ends, OK + CHUNKS + b"0\r\n" + trailers)

    assert (reader.status, bytes(reader.body), reader.reusable) == (200, b"hi", False)
    assert reader.headers == {"transfer-encoding": "chunked"}


def test_headers_are_known_by_their_names_in_lower_case(ends: tuple[socket.socket, socket.socket]) -> None:
    reader = read(ends, OK + b"Retry-After: 7\r\n" + TWO)

    assert reader.headers == {"retry-after": "7", "content-length": "2"}
