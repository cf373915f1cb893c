"""The sandbox: a server on 127.0.0.1 that imitates webhook receivers, answers by script and records requests."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, Self

from notifications.testing.sandbox.handler import Handler
from notifications.testing.sandbox.inbox import Inbox
from notifications.testing.sandbox.journal import Journal

STOP_TIMEOUT_SECONDS = 5.0


class Server(socketserver.ThreadingTCPServer):
    """A TCP server with one thread for each connection.

    Args:
        inbox: The scripts and deliveries that the handlers use.
        port: Port on 127.0.0.1; 0 selects a free one.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512  # a burst of connections must not be refused

    def __init__(self, inbox: Inbox, port: int) -> None:
        self.inbox = inbox
        self.open_connections: set[socket.socket] = set()
        self.changed = threading.Condition()
        super().__init__(("127.0.0.1", port), partial(Handler, inbox))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Register the connection, so that `close_all` can close it."""
        with self.changed:
            self.open_connections.add(request)
            self.inbox.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close and unregister the connection."""
        super().shutdown_request(request)
        with self.changed:
            self.open_connections.discard(request)
            self.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing for a closed connection; print any other error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def close_all(self) -> None:
        """Close every connection and wait until their threads have ended."""
        with self.changed:
            for connection in self.open_connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.changed.wait_for(lambda: not self.open_connections, STOP_TIMEOUT_SECONDS)


class Sandbox(Inbox):
    """A webhook receiver on 127.0.0.1 with a script of answers for each key.

    Use it as a context manager, or call `start` and `stop`.

    Args:
        journal: File to which each delivery is appended as a JSON line. The line is on disk before the answer is sent.
        port: Port on 127.0.0.1. 0 selects a free one, which stays the same when the sandbox is started again.
    """

    def __init__(self, journal: Path | None = None, port: int = 0) -> None:
        super().__init__()
        self.port = port
        self._journal_path = journal
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def origin(self) -> str:
        """The sandbox's origin, ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def webhook_url(self, key: str) -> str:
        """Return the address of a Feishu flow on this sandbox, to store in a user's channel.

        Args:
            key: Last part of the path; it selects the script. 8 to 128 letters, digits, ``_`` or ``-``.
        """
        return f"{self.origin}/flow/api/trigger-webhook/{key}"

    def start(self) -> None:
        """Start to listen. Scripts and deliveries of an earlier start are kept."""
        self.stopping.clear()
        self._server = Server(self, self.port)
        self.port = self._server.server_address[1]
        self._journal = Journal(self._journal_path) if self._journal_path else None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="sandbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop to listen, and close all connections. Held and delayed requests get no answer."""
        if self._server is None or self._thread is None:
            return
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.close_all()
        self._server.server_close()
        self._server = None
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
