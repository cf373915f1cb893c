"""Where a process begins to look at the queue: behind what it has claimed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

FULL_LOOK_PART = 0.1
"""Part of the time that looks from the beginning of the queue may take."""
MAX_PAUSE_SECONDS = 5.0
"""Longest time until the next look from the beginning may take place. A look takes long, too, if the connection hangs,
and then the next one must not be put off for minutes."""
ROUNDING_SECONDS = 0.00001
"""A time loses digits on its way through Python and back."""


class QueueStart:
    """For each priority the time before which every due record was claimed, as far as this process has seen.

    PostgreSQL keeps the index entries of claimed records while an old snapshot is open, for example that of pg_dump,
    and reads all of them in each look from the beginning of the queue. So a look begins where the last one ended.
    Records that were committed late, or that another process returned, are found by a look from the beginning. Usually
    that costs nothing, and nearly every look is one. Where it is slow, such looks take FULL_LOOK_PART of the time.
    """

    def __init__(self) -> None:
        self._since: dict[int, float] = {}
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

    def begin(self, channels: Sequence[str]) -> Mapping[int, float]:
        """Begin a look.

        Args:
            channels: Names of the channels that are looked at.

        Returns:
            Unix time at which the first records that are looked at became due, by priority. A priority that is missing
            is looked at from its beginning.
        """
        if self._channels != tuple(channels):
            self._channels, self._since = tuple(channels), {}
        self._began = time.monotonic()
        self._full = not self._since or self._began >= self._full_look_at
        self._saw_all = self._saw_all or self._full
        if self._full:
            return {}
        return {priority: since - ROUNDING_SECONDS for priority, since in self._since.items()}

    def end(self, since: Mapping[int, float]) -> None:
        """Note where a look has ended.

        Args:
            since: Unix time before which nothing is left, by priority. A priority of which nothing was found is not
                named.
        """
        if self._full:
            now = time.monotonic()
            self._full_look_at = now + min((now - self._began) * (1 / FULL_LOOK_PART - 1), MAX_PAUSE_SECONDS)
        self._since.update(since)

    @property
    def seconds_until_full_look(self) -> float | None:
        """Seconds until a look from the beginning may take place; None if there was one since the last wake-up."""
        return None if self._saw_all else max(0.0, self._full_look_at - time.monotonic())
