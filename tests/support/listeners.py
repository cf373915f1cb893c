"""A listener on the loopback that nothing may ever reach."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self


class Canary:
    """Listens on 127.0.0.1, and on ::1 where there is one, under one port, and answers nobody."""

    def __init__(self) -> None:
        self._listeners = [_listener(socket.AF_INET, "127.0.0.1", 0)]
        self.port: int = self._listeners[0].getsockname()[1]
        try:
            self._listeners.append(_listener(socket.AF_INET6, "::1", self.port))
        except OSError:
            pass  # a machine without IPv6

    def touched(self) -> bool:
        """Tell whether anybody has connected since the last question."""
        seen = [_accepts(listener) for listener in self._listeners]
        return any(seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for listener in self._listeners:
            listener.close()


def _listener(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((host, port))
        listener.listen(512)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _accepts(listener: socket.socket) -> bool:
    try:
        connection, _address = listener.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True
