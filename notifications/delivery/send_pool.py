"""Sender threads: as many as help, up to a bound; what they finish comes back in groups."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

T = TypeVar("T")

IDLE_RECHECK_SECONDS = 0.5
"""Seconds after which a drain with free slots looks for new rows, though none of its slow sends has ended."""
COLLECT_WINDOW_SECONDS = 0.003
"""Seconds the first finished send waits for others: one statement then claims or settles many rows. Half of the slots
are enough not to wait; against a slow endpoint this is little beside the answer's own time."""
POLL_INTERVAL_SECONDS = 0.005
"""Seconds between two times that a wait for slow sends asks whether there is something else to do."""
SCALE_UP_AFTER_SECONDS = 0.001
"""Seconds without a finished send after which more threads join. A send costs about as much of a processor, so where
results come faster, more threads would only wait for each other: Python runs one at a time."""


class SendPool(Generic[T]):
    """Runs `work` for each item in at most `slots` plain threads, which never see the database.

    work: must not raise an Exception; it leaves its result in the item.
    """

    def __init__(self, slots: int, work: Callable[[T], None]) -> None:
        self.slots = slots
        self.in_flight = 0
        """Items submitted and not handed back yet."""
        self._work = work
        self._lock = threading.Lock()
        self._todo: deque[T] = deque()
        self._threads = 0
        self._width = 1
        """Threads that may run at present."""
        self._done: deque[T] = deque()
        self._wanted = 1
        """Finished items that are worth waking up for."""
        self._ready = threading.Event()

    def submit(self, items: Collection[T]) -> None:
        """Start work on the items."""
        self.in_flight += len(items)
        with self._lock:
            self._todo.extend(items)
        self._start_threads()

    def collect(self, called: Callable[[], bool] = lambda: False) -> list[T]:
        """Return what has finished: waits up to IDLE_RECHECK_SECONDS, then COLLECT_WINDOW_SECONDS for others.

        called: ends the wait early when it says so.
        """
        until = time.monotonic() + IDLE_RECHECK_SECONDS
        while not self._await(1, SCALE_UP_AFTER_SECONDS if self._todo else POLL_INTERVAL_SECONDS):
            if time.monotonic() >= until or not self.in_flight or called():
                return []
            self._widen()
        self._await(min(self.in_flight, self.slots // 2), COLLECT_WINDOW_SECONDS)
        finished = [self._done.popleft() for _ in range(len(self._done))]
        self.in_flight -= len(finished)
        return finished

    def collect_all(self) -> list[T]:
        """Return everything that is in flight, once it has finished."""
        finished: list[T] = []
        while self.in_flight:
            finished += self.collect()
        return finished

    def _await(self, count: int, seconds: float) -> bool:
        """Wait until so many have finished; tell whether they have."""
        self._ready.clear()
        self._wanted = count
        if len(self._done) < count and self.in_flight:
            self._ready.wait(seconds)
        return len(self._done) >= count

    def _widen(self) -> None:
        if self._todo:
            self._width = min(self._width * 2, self.slots)
            self._start_threads()

    def _start_threads(self) -> None:
        with self._lock:
            missing = max(0, min(self._width - self._threads, len(self._todo)))
            self._threads += missing
        for started in range(missing):
            try:
                threading.Thread(target=self._run, name="send").start()
            except RuntimeError:  # the system has no more threads: those that run do it, or else this one
                with self._lock:
                    self._threads -= missing - started
                    alone = not self._threads
                    self._threads += alone
                if alone:
                    self._run()
                return

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._todo:
                    self._threads -= 1
                    return
                item = self._todo.popleft()
            try:
                self._work(item)
            except BaseException:
                with self._lock:
                    self._threads -= 1
                raise
            finally:
                self._done.append(item)
                if len(self._done) >= self._wanted:
                    self._ready.set()
