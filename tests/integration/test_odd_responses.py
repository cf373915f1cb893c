"""Odd but valid responses are read as curl reads them: the endpoint has the message by then."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import socket
import subprocess
import threading
import zlib
from collections.abc import Callable

import pytest

from notifications.conf import ServiceOptions
from notifications.providers.base import SendResult
from notifications.providers.http.client import HttpPoster
from notifications.providers.http.messages import HttpResponse

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
PAGE = b'{"code":0}'
END = b"\r\n0\r\n\r\n"


def with_length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body) + body


def deflated_without_header(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


def encoded(coding: bytes, body: bytes) -> bytes:
    return OK + b"Content-Encoding: " + coding + b"\r\n" + with_length(body)


LENGTH = with_length(PAGE)
CHUNK = b"a\r\n" + PAGE
GZIPPED = gzip.compress(PAGE)

READ = {
    "identity as the transfer coding, until the close": OK + b"Transfer-Encoding: identity\r\n\r\n" + PAGE,
    "identity and a length": OK + b"Transfer-Encoding: identity\r\n" + LENGTH,
    "an empty transfer coding and a length": OK + b"Transfer-Encoding: \r\n" + LENGTH,
    "identity, then chunked": OK + b"Transfer-Encoding: identity, chunked\r\n\r\n" + CHUNK + END,
    "two headers of transfer codings": OK
    + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"
    + CHUNK
    + END,
    "Chunked in capital letters": OK + b"Transfer-Encoding: CHUNKED\r\n\r\n" + CHUNK + END,
    "gzip as a transfer coding, then chunked": OK
    + b"Transfer-Encoding: gzip, chunked\r\n\r\n%x\r\n" % len(GZIPPED)
    + GZIPPED
    + END,
    "gzip as the transfer coding, until the close": OK + b"Transfer-Encoding: gzip\r\n\r\n" + GZIPPED,
    "an extension after a blank": CHUNKED + b"a; a=b\r\n" + PAGE + END,
    "an extension between blanks, quoted": CHUNKED + b'a ; a = "b;c"\r\n' + PAGE + b"\r\n0 ; x\r\n\r\n",
    "an extension without a value": CHUNKED + b"a;a\r\n" + PAGE + END,
    "blanks after the size of a chunk": CHUNKED + b"a \t \r\n" + PAGE + END,
    "zeros before the size of a chunk": CHUNKED + b"0000a\r\n" + PAGE + b"\r\n0000\r\n\r\n",
    "line feeds around a chunk": CHUNKED + b"a\n" + PAGE + b"\n0\n\n",
    "a trailer": CHUNKED + CHUNK + b"\r\n0\r\nChecksum: 1\r\n\r\n",
    "many chunks": CHUNKED + b"".join(b"1;n=%d\r\n%c\r\n" % (n, byte) for n, byte in enumerate(PAGE)) + END[2:],
    "a blank before the colon of the length": OK + b"Content-Length : 10\r\n\r\n" + PAGE,
    "the length twice": OK + b"Content-Length: 10\r\n" + LENGTH,
    "the length as a list": OK + b"Content-Length: 10, 10\r\n\r\n" + PAGE,
    "a length with a sign": OK + b"Content-Length: +10\r\n\r\n" + PAGE,
    "a length and more than it": OK + LENGTH + b"more",
    "interim responses": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\n\r\n" + OK + LENGTH,
    "an interim response with a length": b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n" + OK + LENGTH,
    "no reason phrase": b"HTTP/1.1 200\r\n" + LENGTH,
    "line feeds only": (OK + b"Content-Length: 10\r\n\r\n").replace(b"\r", b"") + PAGE,
    "a header on two lines": OK + b"X: a\r\n b\r\n" + LENGTH,
    "a header without a name": OK + b": a\r\n" + LENGTH,
    "a blank in the name of a header": OK + b"X Y: a\r\n" + LENGTH,
    "a name that is not ASCII": OK + "é: a\r\n".encode() + LENGTH,
    "the connection is upgraded by name only": OK + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + LENGTH,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + PAGE,
    "gzip that nobody asked for": encoded(b"gzip", GZIPPED),
    "gzip by its older name": encoded(b"x-gzip", GZIPPED),
    "gzip in chunks": OK
    + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n%x; a\r\n" % len(GZIPPED)
    + GZIPPED
    + END,
    "deflate": encoded(b"deflate", zlib.compress(PAGE)),
    "deflate without its header": encoded(b"deflate", deflated_without_header(PAGE)),
    "gzip twice": encoded(b"gzip, gzip", gzip.compress(GZIPPED)),
    "identity as the content coding": encoded(b"identity", PAGE),
    "two headers of content codings": OK
    + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n"
    + with_length(GZIPPED),
    "gzip in each of two headers": OK
    + b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n"
    + with_length(gzip.compress(GZIPPED)),
    "chunked in each of two headers": OK + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n" + CHUNK + END,
    "chunks and a length": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + END,
    "a long header beside an odd one": OK + b"X Y: a\r\nX: " + b"a" * 20_000 + b"\r\n" + LENGTH,
    "early hints before odd chunks": b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
    + CHUNKED
    + b"a ; a\r\n"
    + PAGE
    + END,
}
"""Responses with the status 200 and the body PAGE, also for curl."""

ONLY_READ_BY_US = {
    "a header without a colon": OK + b"nonsense\r\n" + LENGTH,
    "a line break before the status": b"\r\n" + OK + LENGTH,
    "a byte order mark": OK + with_length(b"\xef\xbb\xbf" + PAGE),
    "UTF-16": OK + with_length(PAGE.decode().encode("utf-16")),
    "a byte order mark within gzip": encoded(b"gzip", gzip.compress(b"\xef\xbb\xbf" + PAGE)),
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + LENGTH,
    "two byte order marks": OK + with_length(b"\xef\xbb\xbf" * 2 + PAGE),
    "UTF-16 without a byte order mark": OK + with_length(PAGE.decode().encode("utf-16-be")),
    "UTF-32": OK + with_length(PAGE.decode().encode("utf-32")),
    "gzip without a header": OK + with_length(GZIPPED),
    "gzip with a parameter": encoded(b"gzip;q=1", GZIPPED),
    "gzip of two members": encoded(b"gzip", gzip.compress(PAGE[:5]) + gzip.compress(PAGE[5:])),
    "zeros after gzip": encoded(b"gzip", GZIPPED + bytes(20)),
    "text that is called gzip": encoded(b"gzip", PAGE),
    "a character set as the content coding": encoded(b"utf-8", PAGE),
    "a character set, then gzip": encoded(b"utf-8, gzip", GZIPPED),
    "8bit as the transfer coding": OK + b"Transfer-Encoding: 8bit\r\n\r\n" + PAGE,
}
"""Responses that curl refuses, or returns with their byte order mark. They prove as much that the message arrived."""

INVALID_BUT_CLEAR = {
    "no blank after the status": b"HTTP/1.1 200OK\r\n" + LENGTH,
    "a unit after the length": OK + b"Content-Length: 10 bytes\r\n\r\n" + PAGE,
    "a transfer coding that means none": OK + b"Transfer-Encoding: none\r\n" + LENGTH,
    "a content coding that means none": encoded(b"none", PAGE),
}
"""Responses that some versions of curl read."""

CUT_OFF = {
    "a length": OK + b"Content-Length: 20\r\n\r\n" + PAGE,
    "a chunk": CHUNKED + b"14; a=b\r\n" + PAGE,
    "the last chunk": CHUNKED + b"a; a=b\r\n" + PAGE + b"\r\n",
}
"""Responses that end in their middle, also for curl."""

ONLY_CUT_OFF_FOR_US = {"a length with a blank before its colon": OK + b"Content-Length : 20\r\n\r\n" + PAGE}
"""curl takes such a header for another one, and reads until the close."""

NO_RESPONSE = {
    "the status 000": b"HTTP/1.1 000 No\r\n" + LENGTH,
    "the status 099": b"HTTP/1.1 099 No\r\n" + LENGTH,
    "the status 99": b"HTTP/1.1 99 No\r\n" + LENGTH,
    "the status 2000": b"HTTP/1.1 2000 OK\r\n" + LENGTH,
    "the beginning of HTTP/0.9": PAGE,
    "another protocol": b"ICY 200 OK\r\n\r\n" + PAGE,
}
"""Answers that are no responses, also for curl."""


def serve(response: bytes) -> int:
    """Answer one request with these bytes, close the connection, and return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listener, contextlib.suppress(OSError):
            connection, _address = listener.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(65536)
                connection.sendall(response)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    threading.Thread(target=answer, daemon=True).start()
    return int(listener.getsockname()[1])


def post(response: bytes) -> HttpResponse | SendResult:
    origin = f"http://127.0.0.1:{serve(response)}"
    return HttpPoster(ServiceOptions(sandbox_origins=(origin,))).post(f"{origin}/", b"{}", {})


def run_curl(response: bytes) -> tuple[int, bytes]:
    command = ["curl", "--silent", "--compressed", "--max-time", "20", "--noproxy", "*", "--data", "{}"]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{serve(response)}/"], capture_output=True, check=False, timeout=60
    )
    return done.returncode, done.stdout


def read_all(table: dict[str, bytes], read: Callable[[bytes], object]) -> dict[str, object]:
    return {name: read(response) for name, response in table.items()}


def test_odd_responses_are_read() -> None:
    def read(response: bytes) -> object:
        result = post(response)
        return (result.status, result.text) if isinstance(result, HttpResponse) else result.error_message

    table = READ | ONLY_READ_BY_US | INVALID_BUT_CLEAR
    assert read_all(table, read) == dict.fromkeys(table, (200, PAGE.decode()))


def test_a_response_that_is_cut_off_or_none_means_that_the_message_may_have_arrived() -> None:
    def read(response: bytes) -> object:
        result = post(response)
        return (result.error_code, result.maybe_delivered) if isinstance(result, SendResult) else result.text

    table = CUT_OFF | ONLY_CUT_OFF_FOR_US | NO_RESPONSE
    assert read_all(table, read) == dict.fromkeys(table, ("network_error", True))


def test_a_body_with_an_unknown_coding_is_left_out_and_named() -> None:
    for name, response in {"br": encoded(b"br", b"\x0b\x02"), "gzip": encoded(b"gzip", b"\x1f\x8bno gzip")}.items():
        result = post(response)

        assert isinstance(result, HttpResponse), name
        assert (result.status, result.body, result.unknown_coding) == (200, b"", name)


def test_a_compressed_body_is_read_up_to_the_limit() -> None:
    result = post(encoded(b"gzip", gzip.compress(b"x" * 10_000_000)))

    assert isinstance(result, HttpResponse)
    assert result.body == b"x" * 64 * 1024


@pytest.mark.processes
@pytest.mark.skipif(not shutil.which("curl") and not os.environ.get("CI"), reason="no curl on this machine")
def test_curl_reads_the_same_and_misses_the_same() -> None:
    assert read_all(READ, run_curl) == dict.fromkeys(READ, (0, PAGE))
    assert [name for name, response in (CUT_OFF | NO_RESPONSE).items() if run_curl(response)[0] == 0] == []
    assert [name for name, response in ONLY_READ_BY_US.items() if run_curl(response) == (0, PAGE)] == []
