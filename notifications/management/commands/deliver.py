"""Deliver without Celery: processes that listen for nudges, and do the work of beat themselves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import close_old_connections, connection
from django.utils.translation import gettext_lazy as _

from notifications.beat import (
    DUE_JOBS_INTERVAL_SECONDS,
    PURGE,
    PURGE_INTERVAL_SECONDS,
    REPLAY_INTERVAL_SECONDS,
    RUN_DUE_JOBS,
    RUN_REPLAYS,
    WATCH,
)
from notifications.broker.wakeups import ResidentDrain
from notifications.conf import service_options
from notifications.delivery.process_drain import ProcessDrain
from notifications.maintenance.job_scheduler import run_due_jobs
from notifications.maintenance.pruner import purge, retention_cutoff
from notifications.management.commands._base import ProcessesCommand, StopSignal, stop_on_signals
from notifications.management.commands.deliver_due import IDLE_INTERVAL_SECONDS, handle_trigger
from notifications.monitoring.alerting import dispatcher as alerts
from notifications.processes import run_processes
from notifications.providers import import_providers
from notifications.replay.runner import run_due_batches
from notifications.states import HeartbeatKind
from notifications.telemetry import heartbeats
from notifications.telemetry.counters import roll_up

logger = logging.getLogger("notifications.deliver")

WORK_BUDGET_SECONDS = 5.0
"""How long one run of periodic work lasts at most. The next run continues it."""
LONGEST_PAUSE_SECONDS = 5.0
"""How often a process looks at least whether its heartbeat is due."""


@dataclass(slots=True)
class _Periodic:
    """Work that beat would request. Of several processes, one does it in each period."""

    name: str
    period: float
    """Seconds, as `due_at`."""
    run: Callable[[], object]
    due_at: float = 0.0
    """Monotonic clock."""


class Command(ProcessesCommand):
    """Runs the same drain as a worker process of Celery."""

    about = _(
        "Deliver without Celery: processes that share the memory of the loaded code, listen for nudges, and "
        "do the work of beat (sweeps, alerts, purge, replays, due jobs) on a schedule of their own. Events of other "
        "Celery apps need a worker. SIGTERM or SIGINT stops all processes; the sends in flight are finished first."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Deliver until a signal."""
        import_providers()
        if status := run_processes(options["processes"], _deliver):
            raise SystemExit(status)


def _deliver(_number: int) -> int:
    """Deliver in this process until a signal. Returns the exit status."""
    stopping = threading.Event()
    process_drain = ProcessDrain(stopping)
    resident = process_drain.resident(after=lambda: heartbeats.record_heartbeat(HeartbeatKind.SWEEP))
    with stop_on_signals() as stop:
        logger.info("delivering until a stop signal", extra={"event": "deliver.started"})
        resident.start()
        _work(stop, resident)
        stopping.set()
        process_drain.delayed_nudge.cancel()
        resident.stop(service_options().lease)
        process_drain.relay.stop()
        heartbeats.delete_worker_heartbeat()
        connection.close()
        logger.info("stopped", extra={"event": "deliver.stopped"})
    return 0


def _work(stop: StopSignal, resident: ResidentDrain) -> None:
    """Do what beat would request, and wake the resident drain for each sweep."""
    options = service_options()
    swept_at = time.monotonic()  # the resident drain begins with a sweep
    work = [
        _Periodic(WATCH, options.sweep_interval, alerts.evaluate),
        _Periodic(PURGE, PURGE_INTERVAL_SECONDS, lambda: _purge(stop)),
        _Periodic(RUN_REPLAYS, REPLAY_INTERVAL_SECONDS, lambda: _run_replays(stop)),
        _Periodic(RUN_DUE_JOBS, DUE_JOBS_INTERVAL_SECONDS, lambda: _run_due_jobs(stop)),
    ]
    while not stop.requested():
        close_old_connections()
        heartbeats.record_heartbeat(HeartbeatKind.WORKER)
        heartbeats.record_heartbeat(HeartbeatKind.BEAT)  # beat's work is done here
        # Without nudges a look at the table each two seconds takes their place.
        sweep_period = options.sweep_interval if resident.listening else IDLE_INTERVAL_SECONDS
        if time.monotonic() >= swept_at + sweep_period:
            swept_at = time.monotonic()
            resident.wake()
        for periodic in work:
            if not stop.requested() and time.monotonic() >= periodic.due_at:
                periodic.due_at = time.monotonic() + periodic.period
                _run(periodic)
        due = min(swept_at + sweep_period, *(periodic.due_at for periodic in work)) - time.monotonic()
        stop.wait(max(0.0, min(due, LONGEST_PAUSE_SECONDS)))


def _run(periodic: _Periodic) -> None:
    """Run it, if its turn is here. Never raises: the next period makes up for it."""
    try:
        if heartbeats.take_turn(periodic.name, periodic.period):
            periodic.run()
    except Exception as error:
        # The type only: the text may name the database's address.
        fields = {"event": "deliver.failed", "task": periodic.name}
        logger.error("%s failed: %s", periodic.name, type(error).__name__, extra=fields)


def _purge(stop: StopSignal) -> None:
    roll_up()
    if days := service_options().retention_days:
        purge(retention_cutoff(days), budget=WORK_BUDGET_SECONDS, should_stop=stop.requested)


def _run_replays(stop: StopSignal) -> None:
    run_due_batches(WORK_BUDGET_SECONDS, should_stop=stop.requested)


def _run_due_jobs(stop: StopSignal) -> None:
    run_due_jobs(handle_trigger, budget=WORK_BUDGET_SECONDS, should_stop=stop.requested)
