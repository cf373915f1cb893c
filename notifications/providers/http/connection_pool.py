"""Connections that stay open between requests, so that a send needs no new TCP and TLS handshake."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from notifications.providers.http.connection import READ, Connection


class ConnectionPool:
    """Idle connections by where they lead. A loop has one.

    The connection that was used last is reused first. When more than `max_idle` connections are idle, the pool closes
    the oldest one of the place that was used longest ago. The selector reports when something arrives on an idle one.
    """

    def __init__(self) -> None:
        self._idle: OrderedDict[Any, list[Connection]] = OrderedDict()
        self._count = 0

    def pop(self, place: Any, *, max_idle_seconds: float) -> Connection | None:
        """Return an idle connection that is still open and on which nothing has arrived; None if there is none.

        Args:
            place: Where it leads, and by which way; hashable.
            max_idle_seconds: A connection that was idle for longer is closed: a router on the way may have forgotten
                it, and then nobody would answer.
        """
        idle = self._idle.get(place, [])
        found = None
        while idle and found is None:
            connection = idle.pop()
            self._count -= 1
            if connection.unused and time.monotonic() - connection.idle_since <= max_idle_seconds:
                found = connection
            else:
                connection.close()
        if not idle:
            self._idle.pop(place, None)
        return found

    def push(self, place: Any, connection: Connection, *, max_idle: int) -> None:
        """Keep a connection for the next request. No unread data may be left on it.

        Args:
            place: Where it leads, and by which way.
            connection: The connection.
            max_idle: Number of idle connections to keep, over all places.
        """
        connection.idle_since = time.monotonic()
        connection.watch(READ)
        self._idle.setdefault(place, []).append(connection)
        self._idle.move_to_end(place)
        self._count += 1
        while self._count > max_idle:
            self.drop(next(iter(self._idle.values()))[0])

    def drop(self, connection: Connection) -> None:
        """Close an idle connection.

        Args:
            connection: The connection; nothing happens if it is not idle.
        """
        for place, idle in self._idle.items():
            if connection in idle:
                idle.remove(connection)
                self._count -= 1
                if not idle:
                    del self._idle[place]
                break
        connection.close()

    def close(self) -> None:
        """Close all idle connections."""
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()
        self._count = 0
