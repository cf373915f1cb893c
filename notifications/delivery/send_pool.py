"""Send pool: threads that make the attempts, as many as help, up to a limit."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

T = TypeVar("T")

IDLE_RECHECK_SECONDS = 0.5
"""Time after which a drain with free slots claims again, even if none of its slow sends has finished."""
COLLECT_WINDOW_SECONDS = 0.003
"""Time that the first finished send waits for others, so that one statement settles many rows. The wait ends early when
half of the slots have finished. It is short beside the response time of a slow endpoint."""
POLL_INTERVAL_SECONDS = 0.005
"""Time between two checks for a wakeup while only slow sends are in flight."""
SCALE_UP_AFTER_SECONDS = 0.001
"""Time without a finished send after which the number of threads doubles. A send needs about as much processor time, so
where results come faster, more threads would only wait for each other: Python runs one at a time."""


class SendPool(Generic[T]):
    """Runs a function for each item in plain threads, which never use the database.

    Args:
        slots: Largest number of threads.
        work: Function that is called with each item. It stores its result in the item and raises no Exception.
    """

    def __init__(self, slots: int, work: Callable[[T], None]) -> None:
        self.slots = slots
        self.in_flight = 0
        """Number of items that were submitted and not collected yet."""
        self._work = work
        self._lock = threading.Lock()
        self._todo: deque[T] = deque()
        self._threads = 0
        self._width = 1
        """Number of threads that may run at present."""
        self._done: deque[T] = deque()
        self._wakeup_count = 1
        """Number of finished items that wakes up the waiting drain."""
        self._ready = threading.Event()

    def submit(self, items: Collection[T]) -> None:
        """Start to work on the items.

        Args:
            items: The items; they may be more than there are slots.
        """
        self.in_flight += len(items)
        with self._lock:
            self._todo.extend(items)
        self._start_threads()

    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[T]:
        """Return the finished items. Wait for the first one, and shortly for others.

        Args:
            interrupted: Function that returns True to end the wait early.

        Returns:
            The finished items; an empty list if none has finished within IDLE_RECHECK_SECONDS.
        """
        deadline = time.monotonic() + IDLE_RECHECK_SECONDS
        while not self._wait_for_done(1, SCALE_UP_AFTER_SECONDS if self._todo else POLL_INTERVAL_SECONDS):
            if time.monotonic() >= deadline or not self.in_flight or interrupted():
                return []
            self.scale_up()
        self._wait_for_done(min(self.in_flight, self.slots // 2), COLLECT_WINDOW_SECONDS)
        return self.take_done()

    @property
    def done(self) -> bool:
        """Whether finished items can be taken."""
        return bool(self._done)

    def take_done(self) -> list[T]:
        """Return the finished items without a wait."""
        finished = [self._done.popleft() for _ in range(len(self._done))]
        self.in_flight -= len(finished)
        return finished

    def collect_all(self) -> list[T]:
        """Wait until everything in flight has finished, and return it."""
        finished: list[T] = []
        while self.in_flight:
            finished += self.collect()
        return finished

    def _wait_for_done(self, count: int, seconds: float) -> bool:
        """Wait until `count` items have finished; return whether they have."""
        self._ready.clear()
        self._wakeup_count = count
        if len(self._done) < count and self.in_flight:
            self._ready.wait(seconds)
        return len(self._done) >= count

    def scale_up(self) -> None:
        """Double the number of threads if items wait for one."""
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
            except RuntimeError:  # the system has no more threads: the running ones do the work, or else this thread
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
                if len(self._done) >= self._wakeup_count:
                    self._ready.set()
