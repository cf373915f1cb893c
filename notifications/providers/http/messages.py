"""HTTP messages as data: what a provider asks for, what an endpoint answers, and how both are read and written."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import ClassVar, Protocol
from urllib.parse import urlsplit

from notifications.conf import ServiceOptions
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.http.content_coding import decode_body, decode_text
from notifications.providers.http.proxy import Proxy
from notifications.providers.http.response_reader import MAX_RESPONSE_BYTES, ResponseReader

MAX_EXCERPT_LENGTH = 2000
"""Characters of a response that are stored with the attempt."""


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""The methods whose responses can be read. The response to HEAD has a length and no body."""


@dataclass(slots=True)
class HttpRequest:
    """A request that a provider asks for."""

    url: str
    """An address that passed the address rules of the provider."""
    body: bytes
    """JSON, UTF-8."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that are added to the default ones, or replace them."""
    method: str = "POST"
    """One of METHODS."""


@dataclass(slots=True, kw_only=True)
class HttpResponse:
    """An endpoint's response."""

    status: int
    body: bytes
    """At most MAX_RESPONSE_BYTES."""
    retry_after: float
    """Seconds that the endpoint asked us to wait; 0 if it did not."""
    headers: Mapping[str, str]
    """Values by name in lower case."""
    unknown_coding: str = ""
    """The codings of a body that could not be decoded, for example `br`; `body` is empty then."""

    @property
    def text(self) -> str:
        """The body as text, in the encoding of its byte order mark, else UTF-8. Invalid bytes are replaced."""
        return decode_text(self.body)


Exchange = Generator[HttpRequest, "HttpResponse | SendResult", SendResult]
"""One attempt without I/O: it yields each request, is sent the response to it, and returns the result.

Where there is no response, it is sent the failed result instead: a temporary failure, whose `maybe_delivered` is True
if the whole request was sent.
"""


@dataclass(frozen=True, slots=True)
class Outbound:
    """How a request leaves this host."""

    origin: str
    """scheme://host:port, without user information."""
    private_allowed: bool
    """True if the origin may have a loopback or private address: a sandbox, or a host of the operator's."""
    proxy: Proxy | None
    headers: dict[str, str] = field(default_factory=dict, compare=False)
    """Headers of every request."""


class Poster(Protocol):
    """The bounds of exchanges, and how their requests leave this host. `client.HttpPoster` is the only one."""

    options: ServiceOptions

    def outbound(self, request: HttpRequest) -> Outbound:
        """Return how a request leaves this host.

        Args:
            request: What a provider asks for.
        """
        ...


class HttpProvider(Protocol):
    """A provider without I/O: the engine sends what it asks for."""

    channel: ClassVar[str]
    poster: Poster
    """Its timeouts, and which addresses it may reach."""

    def exchange(self, request: SendRequest, endpoint: Endpoint | None) -> Exchange:
        """Return the exchange of one attempt.

        Args:
            request: The message.
            endpoint: The user's channel settings, or None if the user has none.
        """
        ...


def build_request(url: str, body: bytes, headers: dict[str, str], method: str = "POST") -> bytes:
    """Return the bytes of a request.

    Args:
        url: The absolute address.
        body: JSON, UTF-8, or whatever the headers say.
        headers: Headers that are added to the default ones, or replace them.
        method: One of METHODS.

    Raises:
        ValueError: A header or the address contains a line break or another character that is not allowed there.
    """
    host, target = _host_and_target(url)
    lines = {"Host": host, "Accept-Encoding": "identity"}
    if method != "GET" or body:
        lines |= {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body))}
    lines |= headers
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    if (
        " " in target
        or not target.isprintable()
        or len(head.splitlines()) != len(lines)
        or not (target + head).isascii()
    ):
        raise ValueError("a header or the address contains a character that is not allowed")
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


@lru_cache(maxsize=1000)
def _host_and_target(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return parts.netloc.rpartition("@")[2], target


@lru_cache(maxsize=1000)
def origin_of(url: str) -> str:
    """Return scheme://host:port of an address, without user information."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def read_response(reader: ResponseReader) -> HttpResponse:
    """Return the response that a reader has read, with its body decoded.

    Args:
        reader: The reader of a complete response.
    """
    headers = reader.headers
    body = decode_body(bytes(reader.body), headers, MAX_RESPONSE_BYTES)
    return HttpResponse(
        status=reader.status,
        body=body or b"",
        retry_after=_retry_after(headers),
        headers=headers,
        unknown_coding="" if body is not None else headers.get("content-encoding", "unknown")[:40],
    )


_WAIT_HEADERS = ("retry-after", "x-ogw-ratelimit-reset")
"""Feishu's gateway sends the second. If both are present, the longer time counts."""


def _retry_after(headers: Mapping[str, str]) -> float:
    values = [headers[name] for name in _WAIT_HEADERS if name in headers]
    if not values:
        return 0.0
    # A date is meant on the clock of who sent it.
    try:
        now = parse_http_date(headers.get("date", ""))
    except ValueError:
        now = time.time()
    return max(parse_retry_after(value, now) for value in values)


def parse_retry_after(value: str | None, now: float) -> float:
    """Return the seconds that a Retry-After header asks for.

    Args:
        value: Seconds or an HTTP date (RFC 9110, section 10.2.3), or None.
        now: The current Unix time, by the clock of the sender if possible.

    Returns:
        0 for a missing or invalid value and for a date in the past.
    """
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parse_http_date(value) - now)
    except ValueError:
        return 0.0


def parse_http_date(value: str) -> float:
    """Return the Unix time of an HTTP date in one of its three forms (RFC 9110, section 5.6.7).

    The form of asctime names no time zone; an HTTP date is always in UTC.

    Args:
        value: The value of a header such as Date.

    Raises:
        ValueError: The value is no date.
    """
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, OverflowError) as error:
        raise ValueError("not an HTTP date") from error
