"""What beat has to run, for the project's settings: importable before Django is set up."""

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
"""Header of the sweeps that beat asks for. No argument: a worker of an older release would refuse it."""
PURGE_INTERVAL_SECONDS = 600.0
"""Seconds between two purges; each is short, the next one goes on."""
REPLAY_INTERVAL_SECONDS = 10.0
"""Seconds until a replay operation whose nudge was lost is begun."""
DUE_JOBS_INTERVAL_SECONDS = 10.0
"""Seconds by which a due job may be late."""


def beat_schedule(notifications: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Return the entries of this app for Celery's beat_schedule; merge them with your own.

    notifications: the value of settings.NOTIFICATIONS, for its SWEEP_INTERVAL.
    No queue is named: the project's task_routes decide. An entry that had to wait for a whole interval is given up.
    """
    sweep = ServiceOptions(sweep_interval=(notifications or {}).get("SWEEP_INTERVAL", 0)).sweep_interval
    entries: dict[str, dict[str, Any]] = {
        name: {"task": task, "schedule": seconds, "options": {"expires": seconds}}
        for name, task, seconds in (
            ("notifications-sweep", DELIVER_DUE, sweep),
            ("notifications-watch", WATCH, sweep),
            ("notifications-purge", PURGE, PURGE_INTERVAL_SECONDS),
            ("notifications-replays", RUN_REPLAYS, REPLAY_INTERVAL_SECONDS),
            ("notifications-due-jobs", RUN_DUE_JOBS, DUE_JOBS_INTERVAL_SECONDS),
        )
    }
    entries["notifications-sweep"]["options"]["headers"] = {BEAT_HEADER: True}
    return entries
