"""Ends the wait of a loop for the network, from any thread."""

from __future__ import annotations

import contextlib
import selectors
import socket


class Alarm:
    """A pair of sockets: the selector of the loop watches one end, and any thread may write to the other.

    Args:
        selector: The selector of the loop. It reports an event without data.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._watched, self._written = socket.socketpair()
        for end in (self._watched, self._written):
            end.setblocking(False)
        selector.register(self._watched, selectors.EVENT_READ)

    def ring(self) -> None:
        """End the present wait of the loop, or its next one. Nothing happens if the loop was closed."""
        with contextlib.suppress(OSError):  # also if the buffer is full: then it rings already
            self._written.send(b"!")

    def silence(self) -> None:
        """Let the loop wait again."""
        with contextlib.suppress(BlockingIOError):
            self._watched.recv(4096)

    def close(self) -> None:
        """Close both ends."""
        self._watched.close()
        self._written.close()
