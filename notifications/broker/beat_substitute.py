"""What a worker does while beat is silent: it publishes beat's messages itself.

Beat can be down, or wait because its clock was set back. Silence is measured on the monotonic clock of this process, so
no clock that is set wrong can hide it. Several workers may publish: a message that comes too early is dropped.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime

from django.db import Error

from notifications.beat import BEAT_HEADER, beat_schedule
from notifications.broker.nudge import publish_periodic
from notifications.conf import service_options
from notifications.telemetry.heartbeats import WRITE_INTERVAL_SECONDS, last_heartbeats

logger = logging.getLogger("notifications.beat")

CHECK_INTERVAL_SECONDS = 5.0


class BeatSubstitute:
    """Publishes the periodic messages while beat is silent for two intervals of the sweep."""

    def __init__(self) -> None:
        self._checked = self._changed = time.monotonic()
        self._last_seen: datetime | None = None
        self._published: dict[str, float] = {}

    def reserve_check(self) -> bool:
        """Return True at most every CHECK_INTERVAL_SECONDS; the caller must then call `check`."""
        now = time.monotonic()
        if now - self._checked < CHECK_INTERVAL_SECONDS:
            return False
        self._checked = now
        return True

    def check(self) -> None:
        """Publish the messages that are due, if beat is silent. Never raises: the next check follows."""
        try:
            seen = last_heartbeats().beat
        except Error:
            return
        now, interval = time.monotonic(), service_options().sweep_interval
        if seen != self._last_seen:
            self._last_seen, self._changed = seen, now
            self._published.clear()
        # The heartbeat is not written more often.
        if now - self._changed < 2 * interval + WRITE_INTERVAL_SECONDS:
            return
        if not self._published:
            logger.warning("beat is silent, this worker publishes its messages", extra={"event": "beat.substituted"})
        for name, entry in beat_schedule({"SWEEP_INTERVAL": interval}).items():
            if now - self._published.get(name, 0.0) >= entry["schedule"]:
                self._published[name] = now
                self._publish(entry["task"], entry["options"]["headers"])

    def _publish(self, task: str, headers: dict[str, object]) -> None:
        try:
            publish_periodic(task, {name: value for name, value in headers.items() if name != BEAT_HEADER})
        except Exception as error:
            # Only the type: the text may name the broker's address.
            logger.warning("message not sent: %s", type(error).__name__, extra={"event": "nudge.failed"})
