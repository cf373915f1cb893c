"""The one drain of a process: every nudge and sweep of the process starts it, or wakes it up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from notifications.broker.delayed_nudge import DelayedNudge
from notifications.broker.nudge import mark_nudge_received, nudge_all
from notifications.broker.wakeups import ResidentDrain
from notifications.delivery.engine import engine_with_redis
from notifications.delivery.queue_start import QueueStart
from notifications.delivery.wakeup import Wakeup
from notifications.lifecycle.relay import RelayThread

LINGER_SECONDS = 1.0
"""How long a drain waits for a record that becomes due. For a later one a nudge is planned."""


class ProcessDrain:
    """Runs at most one drain at a time in this process.

    Args:
        stopping: Event that is set when the process stops. A running drain then claims nothing more.
    """

    def __init__(self, stopping: threading.Event) -> None:
        self.delayed_nudge = DelayedNudge()
        self._queue_start = QueueStart()
        self._stopping = stopping
        self._wakeup = Wakeup()
        self._lock = threading.Lock()
        self._resident: ResidentDrain | None = None
        self.relay = RelayThread(delivering=self._lock.locked)

    def resident(self, after: Callable[[], object] = lambda: None) -> ResidentDrain:
        """Return threads that listen for nudges and run this drain.

        Args:
            after: Called after each drain.
        """

        def drain() -> None:
            self.run()
            after()

        self._resident = ResidentDrain(drain, received=self.mark_nudge, wakeup=self._wakeup, stopping=self._stopping)
        return self._resident

    def mark_nudge(self) -> None:
        """Allow the next nudge while a drain runs, which marked only the nudge that started it."""
        if self._lock.locked():
            mark_nudge_received()

    def run(self) -> None:
        """Drain, unless a drain runs: then make it claim again. A thread beside it calls the receivers of signals."""
        self.relay.start()
        self._wakeup.set()
        # A call that comes while the drain ends finds the lock free, or the drain sees its wakeup in the next loop.
        while self._wakeup.is_set() and self._lock.acquire(blocking=False):
            try:
                has_more = self._drain_while_due()
            finally:
                self._lock.release()
            if has_more or self._stopping.is_set():  # another process continues, or this one after its restart
                nudge_all()

    def _drain_while_due(self) -> bool:
        """Drain, and wait for records that become due soon, such as those of an endpoint with a rate limit.

        Returns:
            Whether due records are probably left, because the time budget ended first.
        """
        engine = engine_with_redis(
            should_stop=self._stopping.is_set,
            wakeup=self._wakeup,
            queue_start=self._queue_start,
            before_claim=self._resident.before_claim if self._resident else str,
        )
        deadline = time.monotonic() + engine.options.drain_budget
        while True:
            self._wakeup.clear()
            has_more = engine.deliver_due(on_backlog=nudge_all, on_started=mark_nudge_received).has_more
            if has_more or self._stopping.is_set():
                return has_more
            seconds = engine.seconds_until_due(within=engine.options.sweep_interval)
            if seconds is None:
                return False
            if seconds > LINGER_SECONDS or time.monotonic() >= deadline:
                self.delayed_nudge.within(seconds)
                return False
            self._wakeup.wait(seconds)
