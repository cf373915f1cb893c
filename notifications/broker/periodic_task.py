"""The base of the tasks that beat requests."""

from __future__ import annotations

from typing import Any

from celery import Task

from notifications.beat import BEAT_HEADER, PERIOD_HEADER
from notifications.states import HeartbeatKind
from notifications.telemetry import heartbeats


class PeriodicTask(Task[Any, Any]):
    """A task that drops a message of beat that comes too soon after another one, for example after a long queue.

    PostgreSQL's clock decides, so the clocks of beat and workers may differ. A message without a period is a nudge,
    which is never dropped.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, unless its message is dropped."""
        headers = self.request.headers or {}
        if headers.get(BEAT_HEADER):
            heartbeats.record_heartbeat(HeartbeatKind.BEAT)
        period = float(headers.get(PERIOD_HEADER) or 0)
        if period > 0 and not heartbeats.take_turn(self.name, period):
            return None
        # Not Celery's __call__, which would hide the headers from the task.
        return self.run(*args, **kwargs)
