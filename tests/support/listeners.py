"""A listener on the loopback interface, for tests in which nothing may connect to it."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self


class LoopbackListener:
    """Listens on one port of 127.0.0.1, and of ::1 if the machine has IPv6. It answers nothing."""

    def __init__(self) -> None:
        self._listeners = [_open_open_listener(socket.AF_INET, "127.0.0.1", 0)]
        self.port: int = self._listeners[0].getsockname()[1]
        try:
            self._listeners.append(_open_open_listener(socket.AF_INET6, "::1", self.port))
        except OSError:
            pass  # this machine has no IPv6

    def was_reached(self) -> bool:
        """Return whether a client has connected since the last call."""
        accepted = [_accept(listener) for listener in self._listeners]
        return any(accepted)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for listener in self._listeners:
            listener.close()


def _open_open_listener(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.bind((host, port))
        listener.listen(512)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _accept(listener: socket.socket) -> bool:
    try:
        connection, _address = listener.accept()
    except BlockingIOError:
        return False
    connection.close()
    return True
