"""TCP ports for servers of our own."""

from __future__ import annotations

import contextlib
import secrets
import socket

# Below the range that Linux (32768) and macOS (49152) give to outgoing connections: while a server is stopped, no
# connection may get its port by chance, and a client that tries to connect to it must not connect to itself.
PORTS = range(15000, 32000)


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 that no process listens on."""
    while True:
        port = PORTS[secrets.randbelow(len(PORTS))]
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
