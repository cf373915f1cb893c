"""HTTP client of all webhook providers: open connections, bounded time and size, no redirects."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from notifications.conf import ServiceOptions
from notifications.providers.base import SendResult
from notifications.providers.http.io_loop import borrow_loop
from notifications.providers.http.messages import Exchange, HttpRequest, HttpResponse, Outbound, origin_of
from notifications.providers.http.proxy import parse_proxy

MAX_REMEMBERED_ORIGINS = 1000


class HttpPoster:
    """Sends POST requests with JSON over connections that stay open. There are no redirects, cookies or netrc.

    Each provider has one. The engine runs the exchanges of a provider in its own loop, with the bounds of this object.
    The methods here run one exchange in the calling thread; any number of threads may call them at the same time.

    Args:
        options: The timeouts, the number of idle connections (SEND_SLOTS) and the origins of sandboxes.
        private_hosts: Hosts, with a port if the address has one, that may have a private address. The operator has
            named them. Every other host must have a public one.
    """

    def __init__(self, options: ServiceOptions, *, private_hosts: Collection[str] = ()) -> None:
        self.options = options
        self.private_hosts = private_hosts
        self.user_agent = options.user_agent
        self.proxy = parse_proxy(options.http_proxy)
        self._way_to = lru_cache(maxsize=MAX_REMEMBERED_ORIGINS)(self._find_way)

    def outbound(self, request: HttpRequest) -> Outbound:
        """Return how a request leaves this host.

        Args:
            request: What a provider asks for.
        """
        return self._way_to(origin_of(request.url))

    def _find_way(self, origin: str) -> Outbound:
        private = origin in self.options.sandbox_origins or origin.partition("://")[2] in self.private_hosts
        return Outbound(
            origin=origin,
            # A sandbox and the hosts of FEISHU_HOSTS are in the operator's network.
            private_allowed=private,
            proxy=None if private or not origin.startswith("https:") else self.proxy,
            headers={"User-Agent": self.user_agent},
        )

    def run(self, exchange: Exchange) -> SendResult:
        """Run an exchange in this thread and return its result.

        Args:
            exchange: The exchange of a provider. All its requests share one deadline, TOTAL_TIMEOUT from now.

        Raises:
            Exception: What the exchange raised. A network error is no exception but a result.
        """
        with borrow_loop() as loop:
            return loop.run(self, exchange)

    def post(self, url: str, body: bytes, headers: dict[str, str]) -> HttpResponse | SendResult:
        """Post once and return the response, or the failed result if there was none. Never raises a network error.

        Args:
            url: An address that passed the address rules of the provider.
            body: JSON, UTF-8.
            headers: Further headers.

        Returns:
            The response, which may echo secrets (see `without_secrets`). Or a temporary failure; its
            `maybe_delivered` is True if the whole request was sent.
        """
        return self.request(HttpRequest(url, body, headers))

    def request(self, request: HttpRequest) -> HttpResponse | SendResult:
        """Make one request in this thread; as `post`.

        Args:
            request: The request. Its address passed the address rules of the caller.
        """
        answers: list[HttpResponse | SendResult] = []

        def exchange() -> Exchange:
            answers.append((yield request))
            return SendResult(outcome="")

        self.run(exchange())
        return answers[0]
