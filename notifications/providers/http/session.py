"""A session of `requests` for code that blocks: a `send()` of your own, alert receivers, one-off look-ups.

Its transport is the loop of this package. So the bounds of a webhook apply to it: the total deadline, the check of the
address where the connection is made, one send for each request, the largest response, HTTP_PROXY.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping
from datetime import timedelta
from http.client import responses
from typing import Any

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from notifications.conf import ServiceOptions, service_options
from notifications.providers.base import ProviderError, SendResult
from notifications.providers.http.client import HttpPoster
from notifications.providers.http.messages import METHODS, Exchange, HttpRequest, HttpResponse


class RequestFailed(ProviderError, requests.RequestException):
    """There was no response. The text names neither the address nor what was sent.

    A provider may let it pass: the engine stores its result. `result.maybe_delivered` is True if the whole request was
    sent.
    """

    result: SendResult

    def __init__(self, result: SendResult) -> None:
        ProviderError.__init__(self, result.error_message, result)


class GuardedSession(requests.Session):
    """A session with the bounds of a webhook. Use it in one thread at a time.

    It follows no redirect, repeats no request, keeps no cookies, and reads neither netrc nor the proxies of the
    environment. Certificates are always checked. Connections stay open in the loop, also after the session is closed.

    Args:
        options: The timeouts, sandboxes and HTTP_PROXY; by default those of `settings.NOTIFICATIONS`.
        private_hosts: Hosts that may have a private address, because the operator has named them.
    """

    def __init__(self, options: ServiceOptions | None = None, *, private_hosts: Collection[str] = ()) -> None:
        super().__init__()
        options = options or service_options()
        self.trust_env = False
        self.headers = CaseInsensitiveDict({"User-Agent": options.user_agent, "Accept": "*/*"})
        self.adapters.clear()
        self._poster = HttpPoster(options, private_hosts=private_hosts)
        adapter = _LoopAdapter(self._poster)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request once.

        Args:
            request: The request. Its method is one of GET, POST, PUT, PATCH and DELETE.
            kwargs: `timeout` in seconds for the whole request, at most TOTAL_TIMEOUT; the other arguments of `requests`
                must have their default.

        Returns:
            The response, also a redirect. Its body is read, at most MAX_RESPONSE_BYTES of it.

        Raises:
            RequestFailed: There was no response.
            ValueError: The request or an argument is not supported.
        """
        return super().send(request, **{**kwargs, "allow_redirects": False})

    def run(self, exchange: Exchange) -> SendResult:
        """Make the requests of an exchange, and return its result.

        Args:
            exchange: What to send, and what the answers mean. A request that gets no answer is sent the failed result.
                All its requests share one deadline, TOTAL_TIMEOUT from now. Headers of the session are not added.

        Raises:
            Exception: What the exchange raised.
        """
        return self._poster.run(exchange)


class _LoopAdapter(BaseAdapter):
    """Sends the requests of a session over the loop."""

    def __init__(self, poster: HttpPoster) -> None:
        super().__init__()
        self._poster = poster

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request and return its response."""
        if verify is not True or cert or any((proxies or {}).values()):
            raise ValueError("verify, cert and proxies are not supported: certificates are checked, HTTP_PROXY is set")
        if timeout is not None and not isinstance(timeout, (int, float)):
            raise ValueError("timeout must be a number of seconds, for the whole request")
        if request.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}")
        body = request.body if request.body is not None else b""
        if not isinstance(body, (bytes, str)):
            raise ValueError("the body must be bytes or a text, not a stream")
        message = HttpRequest(
            url=request.url or "",
            body=body.encode() if isinstance(body, str) else body,
            headers=_headers(request),
            method=request.method,
        )
        began = time.monotonic()
        answer = self._poster_with(timeout).request(message)
        if isinstance(answer, SendResult):
            raise RequestFailed(answer)
        return _response(answer, request, time.monotonic() - began)

    def close(self) -> None:
        """Nothing is to be closed: the connections are the loop's."""

    def _poster_with(self, timeout: float | None) -> HttpPoster:
        total = self._poster.options.total_timeout
        if timeout is None or timeout >= total:
            return self._poster
        shorter = dataclasses.replace(self._poster.options, total_timeout=max(float(timeout), 0.0))
        return HttpPoster(shorter, private_hosts=self._poster.private_hosts)


_NAMES = {name.lower(): name for name in ("Host", "Accept-Encoding", "Content-Type", "Content-Length", "User-Agent")}
"""Headers that a request has anyway, in the spelling by which others replace them."""


def _headers(request: requests.PreparedRequest) -> dict[str, str]:
    if "Transfer-Encoding" in request.headers:
        raise ValueError("the header Transfer-Encoding is not supported: a body has a length")
    values: Any = request.headers  # texts, and bytes that the caller gave
    return {
        _NAMES.get(name.lower(), name): value if isinstance(value, str) else value.decode("latin-1")
        for name, value in values.items()
    }


def _response(answer: HttpResponse, request: requests.PreparedRequest, seconds: float) -> requests.Response:
    response: Any = requests.Response()
    response.status_code = answer.status
    response.reason = responses.get(answer.status, "")
    response.headers = CaseInsensitiveDict(answer.headers)
    response.encoding = requests.utils.get_encoding_from_headers(response.headers)
    response.url = request.url or ""
    response.request = request
    response.elapsed = timedelta(seconds=seconds)
    response.raw = answer
    response._content = answer.body
    response._content_consumed = True
    built: requests.Response = response
    return built
