"""Connections that stay open between requests, so that a send costs one round trip and no handshake."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import urlsplit

from certifi import where
from urllib3.connection import HTTPConnection

from notifications.providers.http.ssrf_guard import GuardedHTTPConnection, GuardedHTTPSConnection, tls_context


class Connections:
    """Guarded connections by origin; the one used last is used next. Safe to use from many threads.

    max_idle: connections that are kept when nobody uses them; of more, those to the origin used longest ago go first.
    connect_timeout: seconds to reach an endpoint.
    """

    def __init__(self, *, max_idle: int, connect_timeout: float) -> None:
        self.max_idle = max_idle
        self.connect_timeout = connect_timeout
        self._tls = tls_context()
        self._idle: OrderedDict[str, list[HTTPConnection]] = OrderedDict()
        self._count = 0
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, _close_all, self._idle)

    def take(self, origin: str) -> HTTPConnection:
        """Return a connection to scheme://host:port that the other end has not closed, opening one if need be.

        Raises OSError or urllib3's HTTPError when there is none to be had.
        """
        while connection := self._pop(origin):
            if connection.is_connected:
                return connection
            connection.close()
        return self._open(origin)

    def keep(self, origin: str, connection: HTTPConnection) -> None:
        """Take back a connection on which nothing is left to read."""
        surplus = None
        with self._lock:
            self._idle.setdefault(origin, []).append(connection)
            self._idle.move_to_end(origin)
            self._count += 1
            if self._count > self.max_idle:
                oldest, idle = next(iter(self._idle.items()))
                surplus = idle.pop(0)
                self._count -= 1
                if not idle:
                    del self._idle[oldest]
        if surplus:
            surplus.close()

    def _pop(self, origin: str) -> HTTPConnection | None:
        with self._lock:
            idle = self._idle.get(origin)
            if not idle:
                return None
            self._count -= 1
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
