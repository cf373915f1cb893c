"""What every webhook shares: one session, bounded time and size, no redirects, errors without secrets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import RequestException, SSLError, Timeout
from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError as Urllib3Timeout

from notifications.conf import ServiceOptions
from notifications.providers.base import SendResult
from notifications.providers.guard import AddressRefused, GuardedHTTPPool, GuardedHTTPSPool, limits, tls_context
from notifications.states import ErrorCode, Outcome

RESPONSE_LIMIT = 64 * 1024
"""Bytes of an answer that are read; the rest is never asked for."""
EXCERPT_LIMIT = 2000
"""Characters of an answer that are kept with the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An endpoint's answer, as much of it as we read."""

    status: int
    body: bytes
    retry_after: float
    """Seconds the endpoint asked us to wait; 0 if it did not."""

    @property
    def text(self) -> str:
        """The body as text, undecodable bytes replaced."""
        return self.body.decode("utf-8", "replace")


class _Adapter(HTTPAdapter):
    """Brings the guarded connection pools under requests."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=tls_context())
        self.poolmanager.pool_classes_by_scheme = {"http": GuardedHTTPPool, "https": GuardedHTTPSPool}


class HttpPoster:
    """Posts JSON. One for each provider and process; safe to use from many threads."""

    def __init__(self, options: ServiceOptions) -> None:
        self.options = options
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy and no netrc of the environment may reroute a message
        self.session.headers = {"User-Agent": "SmartMate-Notifications", "Accept-Encoding": "identity"}
        # Users share the session; what an endpoint sets for one must not be sent with another's message.
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = _Adapter(pool_connections=64, pool_maxsize=options.send_slots, max_retries=0)
        self.session.mount("https://", adapter)
        self.session.mount("http://", adapter)

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> Answer | SendResult:
        """Post `body` and return the answer, or the result when there was none. Never raises for the network's sake.

        url: must have passed the provider's own address rules. The answer may echo it: see `without_secrets`.
        """
        limits.deadline = time.monotonic() + self.options.total_timeout
        limits.inside_allowed = origin_of(url) in self.options.sandbox_origins
        try:
            with self.session.post(
                url,
                data=body,
                headers={"Content-Type": "application/json; charset=utf-8"} | headers,
                timeout=(self.options.connect_timeout, self.options.read_timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                return Answer(
                    status=response.status_code,
                    body=_read(response),
                    retry_after=_retry_after(response.headers),
                )
        except (RequestException, HTTPError, OSError, ValueError) as error:
            return failure(error)


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
        isinstance(cause, (Timeout, Urllib3Timeout, TimeoutError)) and not isinstance(cause, NewConnectionError)
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


def _read(response: requests.Response) -> bytes:
    """Return at most RESPONSE_LIMIT bytes; a connection with more on it is not used again."""
    body = bytearray()
    while len(body) < RESPONSE_LIMIT and (chunk := response.raw.read(RESPONSE_LIMIT - len(body), decode_content=False)):
        body += chunk
    return bytes(body)


def _retry_after(headers: Any) -> float:
    """Return the seconds of Retry-After (number or date) or of Feishu's gateway header; 0 without either."""
    value = headers.get("Retry-After") or headers.get("x-ogw-ratelimit-reset") or ""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
