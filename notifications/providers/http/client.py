"""HTTP client of all webhook providers: open connections, bounded time and size, no redirects."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from notifications.conf import ServiceOptions
from notifications.providers.base import SendResult
from notifications.providers.http.connection_pool import ConnectionPool
from notifications.providers.http.failures import network_failure_result
from notifications.providers.http.response_reader import MAX_RESPONSE_BYTES, ResponseReader
from notifications.providers.http.ssrf_guard import request_deadline

MAX_EXCERPT_LENGTH = 2000
"""Characters of a response that are stored with the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """An endpoint's response."""

    status: int
    body: bytes
    """At most MAX_RESPONSE_BYTES."""
    retry_after: float
    """Seconds that the endpoint asked us to wait; 0 if it did not."""
    headers: Mapping[str, str]
    """Values by name in lower case."""

    @property
    def text(self) -> str:
        """The body decoded as UTF-8. Invalid bytes are replaced."""
        return self.body.decode("utf-8", "replace")


class HttpPoster:
    """Sends POST requests with JSON over connections that stay open.

    Each provider of a process has one. It is safe to use from many threads. It does not use `requests`: a session costs
    several times as much CPU per send, and its redirects, cookies, proxies and netrc are unwanted here.
    docs/performance.md has the measurements.

    Args:
        options: The timeouts, the size of the pool (SEND_SLOTS) and the origins of sandboxes.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self.options = options
        self.user_agent = options.user_agent
        self.pool = ConnectionPool(max_idle=options.send_slots, connect_timeout=options.connect_timeout)

    def post(
        self, url: str, body: bytes, headers: dict[str, str], *, deadline: float = 0.0
    ) -> HttpResponse | SendResult:
        """Post once and return the response, or the failed result if there was none. Never raises a network error.

        Args:
            url: An address that passed the address rules of the provider.
            body: JSON, UTF-8.
            headers: Further headers.
            deadline: Time of the monotonic clock at which the attempt must have ended; by default TOTAL_TIMEOUT from
                now. Requests of one attempt share one deadline.

        Returns:
            The response, which may echo secrets (see `without_secrets`). Or a temporary failure; its
            `maybe_delivered` is True if the whole request was sent.
        """
        origin = origin_of(url)
        request_deadline.at = deadline or self.deadline()
        request_deadline.private_allowed = origin in self.options.sandbox_origins
        try:
            connection = self._send(origin, build_request(url, body, {"User-Agent": self.user_agent} | headers))
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            return network_failure_result(error)
        try:
            return self._read_response(origin, connection)
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            return dataclasses.replace(network_failure_result(error), maybe_delivered=True)

    def deadline(self) -> float:
        """Return the time of the monotonic clock at which an attempt that starts now must have ended."""
        return time.monotonic() + self.options.total_timeout

    def _send(self, origin: str, request: bytes) -> HTTPConnection:
        connection = self.pool.acquire(origin)
        try:
            connection.sock.settimeout(self.options.read_timeout)
            connection.sock.sendall(request)
        except BaseException:
            connection.close()
            raise
        return connection

    def _read_response(self, origin: str, connection: HTTPConnection) -> HttpResponse:
        reader = ResponseReader(MAX_RESPONSE_BYTES)
        try:
            reader.read(connection.sock)
        except BaseException:
            connection.close()
            raise
        if reader.reusable:
            self.pool.release(origin, connection)
        else:
            connection.close()
        headers = reader.headers
        return HttpResponse(
            status=reader.status, body=bytes(reader.body), retry_after=_retry_after(headers), headers=headers
        )


def build_request(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the bytes of a POST request.

    Args:
        url: The absolute address.
        body: JSON, UTF-8.
        headers: Headers that are added to the default ones, or replace them.

    Raises:
        ValueError: A header or the address contains a line break or another character that is not allowed there.
    """
    parts = urlsplit(url)
    lines = {
        "Host": parts.netloc.rpartition("@")[2],
        "Accept-Encoding": "identity",
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": str(len(body)),
    } | headers
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    if (
        " " in target
        or not target.isprintable()
        or len(head.splitlines()) != len(lines)
        or not (target + head).isascii()
    ):
        raise ValueError("a header or the address contains a character that is not allowed")
    return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


def origin_of(url: str) -> str:
    """Return scheme://host:port of an address, without user information."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _retry_after(headers: Mapping[str, str]) -> float:
    # Feishu's gateway sends x-ogw-ratelimit-reset. If both headers are present, the longer time counts.
    return max(parse_retry_after(headers.get("retry-after")), parse_retry_after(headers.get("x-ogw-ratelimit-reset")))


def parse_retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for.

    Args:
        value: Seconds or an HTTP date (RFC 9110, section 10.2.3), or None.

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
        return max(0.0, parse_http_date(value) - time.time())
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
