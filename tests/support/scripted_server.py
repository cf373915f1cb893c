"""An HTTP server whose connections follow a script, for what happens between a request and its answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Script = Callable[[socket.socket, int], None]
"""Handles one connection; called with it and with its number, from 0."""


class ScriptedServer:
    """Accepts connections on 127.0.0.1 and runs a script for each, in a thread of its own.

    Args:
        script: The script.
    """

    def __init__(self, script: Script) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        """The requests that `read_request` returned, of all connections."""
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    @property
    def origin(self) -> str:
        """The address of the server, without a path."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def read_request(self, connection: socket.socket) -> bytes:
        """Read one request whose body is `{}`, and return it; empty at the end of the connection."""
        data = b""
        while not data.endswith(b"\r\n\r\n{}"):
            if not (more := connection.recv(4096)):
                return b""
            data += more
        self.requests.append(data)
        return data

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(connection, self.connections))
            self.connections += 1
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: socket.socket, number: int) -> None:
        with connection, contextlib.suppress(ConnectionError):  # the client may end it at any time
            connection.settimeout(30)
            self._script(connection, number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for thread in self._threads:
            thread.join()
