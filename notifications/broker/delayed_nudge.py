"""A nudge at a later time, when the next record is due. It is kept in this process; the sweep finds what it loses."""

from __future__ import annotations

import threading
import time

from django.db import connection

from notifications.broker.nudge import nudge


class DelayedNudge:
    """Queues one nudge at the earliest of the times that it was given."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._at = float("inf")
        """When the timer ends, in seconds of the monotonic clock."""

    def within(self, seconds: float) -> None:
        """Queue a nudge at this time, unless an earlier one is planned already.

        Args:
            seconds: The time, from now.
        """
        at = time.monotonic() + seconds
        with self._lock:
            if at >= self._at:
                return
            if self._timer:
                self._timer.cancel()
            self._at = at
            self._timer = threading.Timer(seconds, self._nudge)
            self._timer.daemon = True
            self._timer.start()

    def cancel(self) -> None:
        """Queue no nudge."""
        with self._lock:
            if self._timer:
                self._timer.cancel()
            self._timer, self._at = None, float("inf")

    def _nudge(self) -> None:
        with self._lock:
            self._timer, self._at = None, float("inf")
        try:
            nudge()
        finally:
            connection.close()  # it belongs to this thread, which ends
