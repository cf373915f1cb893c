"""Where a process begins to look at the queue: behind what it has claimed."""

from __future__ import annotations

import time
from collections.abc import Sequence

FULL_LOOK_PART = 0.1
"""Part of the time that looks from the beginning of the queue may take."""
MAX_PAUSE_SECONDS = 5.0
"""Longest time until the next look from the beginning may take place. A look takes long, too, if the connection hangs,
and then the next one must not be put off for minutes."""
ROUNDING_SECONDS = 0.00001
"""A turn loses digits on its way through Python and back."""


class QueueStart:
    """The turn before which every due record was claimed, as far as this process has seen.

    PostgreSQL keeps the index entries of claimed records while an old snapshot is open, for example that of pg_dump,
    and reads all of them in each look from the beginning of the queue. So a look begins where the last one ended.
    Records that were committed late, or that another process returned, are found by a look from the beginning. Usually
    that costs nothing, and nearly every look is one. Where it is slow, such looks take FULL_LOOK_PART of the time.
    """

    def __init__(self) -> None:
        self._turn: float | None = None
        self._channels: tuple[str, ...] = ()
        self._began = 0.0
        self._full = True
        self._saw_all = True
        """Whether a look from the beginning has taken place since the last wake-up."""
        self._full_look_at = float("-inf")
        """When the next look from the beginning may take place, in seconds of the monotonic clock."""

    def expect(self) -> None:
        """Note a wake-up: the record that it was for may be anywhere in the queue."""
        self._saw_all = False

    def begin(self, channels: Sequence[str]) -> float | None:
        """Begin a look, and return the turn at which it begins; None for the beginning of the queue.

        Args:
            channels: Names of the channels that are looked at.
        """
        if self._channels != tuple(channels):
            self._channels, self._turn = tuple(channels), None
        self._began = time.monotonic()
        self._full = self._turn is None or self._began >= self._full_look_at
        self._saw_all = self._saw_all or self._full
        return None if self._full or self._turn is None else self._turn - ROUNDING_SECONDS

    def end(self, turn: float | None) -> None:
        """Note where a look has ended.

        Args:
            turn: The turn before which nothing is left; None if nothing was found.
        """
        if self._full:
            now = time.monotonic()
            self._full_look_at = now + min((now - self._began) * (1 / FULL_LOOK_PART - 1), MAX_PAUSE_SECONDS)
        if turn is not None:
            self._turn = turn

    @property
    def seconds_until_full_look(self) -> float | None:
        """Seconds until a look from the beginning may take place; None if there was one since the last wake-up."""
        return None if self._saw_all else max(0.0, self._full_look_at - time.monotonic())
