"""Connections that stay open between requests, so that a send needs no new TCP and TLS handshake."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import urlsplit

from certifi import where
from urllib3.connection import HTTPConnection

from notifications.providers.http.ssrf_guard import GuardedHTTPConnection, GuardedHTTPSConnection, tls_context


class ConnectionPool:
    """Idle guarded connections by origin. Safe to use from many threads.

    The connection of an origin that was used last is reused first. When more than `max_idle` connections are idle, the
    pool closes one of the origin that was used longest ago.

    Args:
        max_idle: Number of idle connections to keep, over all origins.
        connect_timeout: Seconds to connect to an endpoint.
    """

    def __init__(self, *, max_idle: int, connect_timeout: float) -> None:
        self.max_idle = max_idle
        self.connect_timeout = connect_timeout
        self._tls = tls_context()
        self._idle: OrderedDict[str, list[HTTPConnection]] = OrderedDict()
        self._idle_count = 0
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, _close_all, self._idle)

    def acquire(self, origin: str) -> HTTPConnection:
        """Return an open connection: an idle one that the endpoint has not closed, else a new one.

        Args:
            origin: scheme://host:port.

        Raises:
            OSError: The connection failed. urllib3's HTTPError is raised for the same reason.
        """
        while connection := self._pop_idle(origin):
            if connection.is_connected:
                return connection
            connection.close()
        return self._open(origin)

    def release(self, origin: str, connection: HTTPConnection) -> None:
        """Keep a connection for the next request. No unread data may be left on it.

        Args:
            origin: The origin it was acquired for.
            connection: The connection.
        """
        surplus = None
        with self._lock:
            self._idle.setdefault(origin, []).append(connection)
            self._idle.move_to_end(origin)
            self._idle_count += 1
            if self._idle_count > self.max_idle:
                oldest, idle = next(iter(self._idle.items()))
                surplus = idle.pop(0)
                self._idle_count -= 1
                if not idle:
                    del self._idle[oldest]
        if surplus:
            surplus.close()

    def _pop_idle(self, origin: str) -> HTTPConnection | None:
        with self._lock:
            idle = self._idle.get(origin)
            if not idle:
                return None
            self._idle_count -= 1
            connection = idle.pop()
            if not idle:
                del self._idle[origin]
            return connection

    def _open(self, origin: str) -> HTTPConnection:
        parts = urlsplit(origin)
        connection: HTTPConnection
        if parts.scheme == "https":
            connection = GuardedHTTPSConnection(
                parts.hostname or "", parts.port, timeout=self.connect_timeout, ssl_context=self._tls, ca_certs=where()
            )
        else:
            connection = GuardedHTTPConnection(parts.hostname or "", parts.port, timeout=self.connect_timeout)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection


def _close_all(idle: Mapping[str, list[HTTPConnection]]) -> None:
    for connections in idle.values():
        while connections:
            connections.pop().close()
