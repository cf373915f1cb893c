"""The sandbox itself: a loopback server that answers as Feishu does, by script, and remembers what arrived."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any, Self

from notifications.testing.sandbox.handler import Handler
from notifications.testing.sandbox.inbox import Inbox
from notifications.testing.sandbox.journal import Journal

STOP_SECONDS = 5.0


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512  # a burst of connections must not be turned away

    def __init__(self, sandbox: Sandbox, port: int) -> None:
        self.sandbox = sandbox
        self.open: set[socket.socket] = set()
        self.changed = threading.Condition()
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection, so that stop() can end it."""
        with self.changed:
            self.open.add(request)
            self.sandbox.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        super().shutdown_request(request)
        with self.changed:
            self.open.discard(request)
            self.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about clients that leave; show everything else."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def close_all(self) -> None:
        """End every connection and wait for their threads."""
        with self.changed:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.changed.wait_for(lambda: not self.open, STOP_SECONDS)


class Sandbox(Inbox):
    """A webhook receiver on 127.0.0.1, driven by a script for each key.

    Args:
        journal: file that gets one JSON line for each delivery, on disk before the answer is sent.
        port: where to listen; 0 takes a free one, and keeps it when the sandbox is started again.
    """

    def __init__(self, journal: Path | None = None, port: int = 0) -> None:
        super().__init__()
        self.port = port
        self.connections = 0
        """How many connections were ever made to it."""
        self._journal_path = journal
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def origin(self) -> str:
        """Where it listens, as ``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self.port}"

    def webhook_url(self, key: str) -> str:
        """Return the address to store in a user's channel.

        Args:
            key: the last part of its path, by which scripts and deliveries are told apart; 8 to 128 letters, digits,
                ``_`` or ``-``.
        """
        return f"{self.origin}/flow/api/trigger-webhook/{key}"

    def start(self) -> None:
        """Start to listen. Scripts and deliveries of an earlier start are still there."""
        self.stopping.clear()
        self._server = Server(self, self.port)
        self.port = self._server.server_address[1]
        self._journal = Journal(self._journal_path) if self._journal_path else None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="sandbox", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop to listen, and end all connections; held and slow requests get no answer."""
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
