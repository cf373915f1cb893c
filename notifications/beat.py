"""The periodic tasks of this app. The project's settings import this module, so it needs no Django setup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from notifications.conf import ServiceOptions

DELIVER_DUE = "notifications.deliver_due"
WATCH = "notifications.watch"
PURGE = "notifications.purge_notifications"
RUN_REPLAYS = "notifications.run_replays"
RUN_DUE_JOBS = "notifications.run_due_jobs"

BEAT_HEADER = "by_beat"
"""Header of the sweeps that beat sends; not an argument, because a worker of an older release would refuse one."""
PERIOD_HEADER = "period"
"""Header of every periodic message: its interval in seconds. A message that comes sooner after another is dropped."""
PURGE_INTERVAL_SECONDS = 600.0
"""Each purge is short; the next one continues."""
REPLAY_INTERVAL_SECONDS = 10.0
"""Longest wait of a replay operation whose nudge was lost."""
DUE_JOBS_INTERVAL_SECONDS = 10.0
"""Longest delay of a due job."""

SEND_ON_A_NEW_CONNECTION = {"retry": True, "retry_policy": {"max_retries": 1, "interval_start": 0}}
"""Options of every entry. Without them beat keeps a connection to RabbitMQ that was cut, and never sends again."""


def beat_schedule(notifications: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Return the entries of this app for Celery's beat_schedule. Merge them with your own.

    An entry names no queue, so the project's task_routes decide. A message has no `expires`: a worker would compare it
    with its own clock, and the DatabaseScheduler of django-celery-beat ignores it. It has its interval as a header
    instead, so that workers drop the messages that piled up while none ran.

    Args:
        notifications: The value of settings.NOTIFICATIONS, for its SWEEP_INTERVAL.

    Returns:
        Entries by name, as Celery's setting beat_schedule takes them.
    """
    sweep = ServiceOptions(sweep_interval=(notifications or {}).get("SWEEP_INTERVAL", 0)).sweep_interval
    entries: dict[str, dict[str, Any]] = {
        name: {
            "task": task,
            "schedule": seconds,
            "options": {"headers": {PERIOD_HEADER: seconds}} | SEND_ON_A_NEW_CONNECTION,
        }
        for name, task, seconds in (
            ("notifications-sweep", DELIVER_DUE, sweep),
            ("notifications-watch", WATCH, sweep),
            ("notifications-purge", PURGE, PURGE_INTERVAL_SECONDS),
            ("notifications-replays", RUN_REPLAYS, REPLAY_INTERVAL_SECONDS),
            ("notifications-due-jobs", RUN_DUE_JOBS, DUE_JOBS_INTERVAL_SECONDS),
        )
    }
    entries["notifications-sweep"]["options"]["headers"][BEAT_HEADER] = True
    return entries
