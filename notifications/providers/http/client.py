"""What every webhook shares: open connections, bounded time and size, no redirects, errors without secrets."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from ssl import SSLError
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError as Urllib3Timeout

from notifications.conf import ServiceOptions
from notifications.providers.base import SendResult
from notifications.providers.http.connection_pool import Connections
from notifications.providers.http.response_reader import Reader
from notifications.providers.http.ssrf_guard import AddressRefused, limits
from notifications.states import ErrorCode, Outcome

MAX_RESPONSE_BYTES = 64 * 1024
"""Bytes of an answer that are read; the rest is never asked for."""
MAX_EXCERPT_LENGTH = 2000
"""Characters of an answer that are kept with the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpResponse:
    """An endpoint's answer, as much of it as we read."""

    status: int
    body: bytes
    retry_after: float
    """Seconds the endpoint asked us to wait; 0 if it did not."""
    headers: Mapping[str, str]
    """By name in lower case."""

    @property
    def text(self) -> str:
        """The body as text, undecodable bytes replaced."""
        return self.body.decode("utf-8", "replace")


class HttpPoster:
    """Posts JSON over connections that stay open. One for each provider and process; safe to use from many threads.

    Requests are written in one piece and answers are read by llhttp: a session of `requests` costs several times as
    much of a processor for each send, and what it adds (redirects, cookies, proxies, netrc) must not happen here.
    docs/performance.md has the figures.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self.options = options
        self.user_agent = options.user_agent
        self.connections = Connections(max_idle=options.send_slots, connect_timeout=options.connect_timeout)

    def post(
        self, url: str, body: bytes, headers: dict[str, str], *, deadline: float = 0.0
    ) -> HttpResponse | SendResult:
        """Post `body` and return the answer, or the result when there was none. Never raises for the network's sake.

        url: must have passed the provider's own address rules. The answer may echo it: see `without_secrets`.
        deadline: of the attempt this request is a part of, on the monotonic clock; by default it has one of its own.
        """
        origin = origin_of(url)
        limits.deadline = deadline or self.deadline()
        limits.inside_allowed = origin in self.options.sandbox_origins
        try:
            connection = self._sent(origin, build_request(url, body, {"User-Agent": self.user_agent} | headers))
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            return failure(error)
        try:
            return self._answer(origin, connection)
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            return dataclasses.replace(failure(error), maybe_delivered=True)

    def deadline(self) -> float:
        """Return when an attempt that begins now has to be over, on the monotonic clock."""
        return time.monotonic() + self.options.total_timeout

    def _sent(self, origin: str, request: bytes) -> HTTPConnection:
        """Return the connection on which the whole request went out."""
        connection = self.connections.take(origin)
        try:
            connection.sock.settimeout(self.options.read_timeout)
            connection.sock.sendall(request)
        except BaseException:
            connection.close()
            raise
        return connection

    def _answer(self, origin: str, connection: HTTPConnection) -> HttpResponse:
        reader = Reader(MAX_RESPONSE_BYTES)
        try:
            reader.read(connection.sock)
        except BaseException:
            connection.close()
            raise
        if reader.reusable:
            self.connections.keep(origin, connection)
        else:
            connection.close()  # there is more on it than we want, or the other end is done with it
        headers = reader.headers
        return HttpResponse(
            status=reader.status, body=bytes(reader.body), retry_after=_retry_after(headers), headers=headers
        )


def build_request(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the whole request as it goes over the wire. Raises ValueError for what would end a line of it early."""
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
        raise ValueError("a header or the address holds what does not belong there")
    return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


def origin_of(url: str) -> str:
    """Return scheme://host:port of an address, without user information."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def failure(error: Exception) -> SendResult:
    """Return the result for an exception of the network. Its text never gets out: it holds the whole address."""
    chain = _causes(error)
    if any(isinstance(cause, AddressRefused) for cause in chain):
        return _temporary(ErrorCode.NETWORK_ERROR, "the host resolves to an address that is not public")
    if any(
        isinstance(cause, (Urllib3Timeout, TimeoutError)) and not isinstance(cause, NewConnectionError)
        for cause in chain  # urllib3 counts a refused connection among its timeouts
    ):
        return _temporary(ErrorCode.PROVIDER_TIMEOUT, "no answer in time")
    if any(isinstance(cause, SSLError) for cause in chain):
        return _temporary(ErrorCode.NETWORK_ERROR, "TLS failed")
    return _temporary(ErrorCode.NETWORK_ERROR, f"network trouble ({type(chain[-1]).__name__})")


def _temporary(code: ErrorCode, text: str) -> SendResult:
    return SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code=code, error_message=text)


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and what it wraps, by cause, context, urllib3's reason or the arguments."""
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo and len(found) < 20:
        item = todo.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            todo += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    return found


def _retry_after(headers: Mapping[str, str]) -> float:
    """Return the seconds asked for by Retry-After or by Feishu's gateway header, the longer of both; 0 without any."""
    return max(parse_retry_after(headers.get("retry-after")), parse_retry_after(headers.get("x-ogw-ratelimit-reset")))


def parse_retry_after(value: str | None) -> float:
    """Return the seconds that a header names, as a number or by a date to come; 0 for anything else."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
