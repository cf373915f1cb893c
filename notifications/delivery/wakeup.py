"""The event that tells a drain of new records."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Wakeup(threading.Event):
    """An event whose `set` also ends the wait of a drain for the network."""

    def __init__(self) -> None:
        super().__init__()
        self._interrupt: Callable[[], object] = _nothing

    def set(self) -> None:
        """Set the event, and interrupt the wait of the drain that uses it."""
        super().set()
        self._interrupt()

    @contextmanager
    def interrupting(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Call a function at each `set` in this block.

        Args:
            interrupt: The function. It is called in any thread and must not block.
        """
        self._interrupt = interrupt
        if self.is_set():
            interrupt()
        try:
            yield
        finally:
            self._interrupt = _nothing


def _nothing() -> None:
    pass
