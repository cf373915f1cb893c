"""The Celery tasks: three tasks that handle events, the drain, and the periodic work.

An event's message is the only copy of the request until its row is committed. The message of any other task is only a
nudge. This module declares tasks and signal handlers. The packages below it do the work.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, cast

from celery import Task, shared_task, signals
from celery.exceptions import Reject
from django.db import InterfaceError, OperationalError, close_old_connections, connection, transaction
from django.utils.translation import gettext_lazy as _

from notifications.api import notify_from_event, request_notification, request_triggered
from notifications.beat import BEAT_HEADER, PERIOD_HEADER, PURGE, RUN_DUE_JOBS, RUN_REPLAYS, WATCH
from notifications.broker.beat_substitute import BeatSubstitute
from notifications.broker.event_messages import EventTask, keep_undecoded_events
from notifications.broker.nudge import TASK, publish_event
from notifications.broker.periodic_task import PeriodicTask
from notifications.broker.wakeups import ResidentDrain
from notifications.conf import service_options
from notifications.conf.options import NUDGE_NOTIFY, NUDGE_REDIS
from notifications.delivery.process_drain import ProcessDrain
from notifications.ingest.triggers import TRIGGERED
from notifications.ingest.validation import InvalidNotification
from notifications.maintenance.job_scheduler import run_due_jobs
from notifications.maintenance.pruner import purge, retention_cutoff
from notifications.monitoring.alerting import dispatcher as alerts
from notifications.replay.runner import run_due_batches
from notifications.service import NotificationService, find_result
from notifications.states import HeartbeatKind
from notifications.telemetry import heartbeats
from notifications.telemetry.counters import roll_up

logger = logging.getLogger("notifications.tasks")

FEISHU_REQUESTED = "notification.feishu.requested"
REQUESTED = "notification.requested"
REQUEUE_DELAY_SECONDS = 2.0
"""How long an event waits before it returns to the queue while PostgreSQL is away."""
PURGE_BUDGET_SECONDS = 5.0
"""How long one purge holds a worker's slot. The next purge that beat requests continues it."""
REPLAY_BUDGET_SECONDS = 10.0
"""How long one run of replay operations lasts: as long as beat's interval, so that runs follow without a gap."""
DUE_JOBS_BUDGET_SECONDS = 10.0
"""How long one run publishes due jobs."""

THREADED_POOLS = ("celery.concurrency.thread", "celery.concurrency.solo")
"""Pools whose tasks run in the process that gets the signal `worker_ready`."""

_stopping = threading.Event()
_process_drain = ProcessDrain(_stopping)
_replay_wakeup = threading.Event()
_replay_lock = threading.Lock()
_beat_substitute = BeatSubstitute()
_resident_drains: list[ResidentDrain] = []
"""The resident drain of this process, if it listens for nudges."""
_worker_pools: list[Any] = []
"""The pool of this worker, once the worker is ready."""


@signals.task_prerun.connect
def _close_broken_connections(**kwargs: object) -> None:
    """Close unusable connections. A thread reuses its connection, so a broken one would fail every later task."""
    close_old_connections()


@signals.worker_shutting_down.connect
def _stop_claiming(**kwargs: object) -> None:
    _stopping.set()


@signals.celeryd_init.connect
def _keep_undecoded_events(instance: Any, **kwargs: object) -> None:
    keep_undecoded_events(instance.app, frozenset({FEISHU_REQUESTED, REQUESTED, TRIGGERED}), _reject_undecoded)


def _reject_undecoded(source: str, payload: Any) -> None:
    """Store an event that Celery cannot decode. Each value that only Celery understands is in a field of its own."""
    close_old_connections()
    try:
        NotificationService().reject(
            source, payload, InvalidNotification([("payload", _("has a form that Celery cannot decode"))])
        )
    except (OperationalError, InterfaceError):
        time.sleep(REQUEUE_DELAY_SECONDS)
        raise


@signals.worker_ready.connect
def _remember_pool(sender: Any, **kwargs: object) -> None:
    _worker_pools[:] = [sender.pool]
    if type(sender.pool).__module__ in THREADED_POOLS:
        _start_resident_drain()


@signals.worker_process_init.connect
def _start_resident_drain(**kwargs: object) -> None:
    """Let a process that runs tasks listen for nudges. The parent of forked processes runs none."""
    listens = {NUDGE_NOTIFY, NUDGE_REDIS} & set(service_options().nudge_ways)
    if listens and not _resident_drains:  # the pool `solo` sends both signals
        resident = _process_drain.resident()
        _resident_drains.append(resident)
        resident.start()


# Connected at import: Celery looks for receivers of this signal before the worker is ready.
@signals.heartbeat_sent.connect
def _write_heartbeat_from_pool(**kwargs: object) -> None:
    """Write the heartbeat in a slot of the pool. So a worker whose slots are all stuck has no heartbeat."""
    for pool in _worker_pools:
        if heartbeats.reserve_write(HeartbeatKind.WORKER):
            _run_in_pool(pool, _write_heartbeat)


@signals.heartbeat_sent.connect
def _check_beat_from_pool(**kwargs: object) -> None:
    for pool in _worker_pools:
        if _beat_substitute.reserve_check():
            _run_in_pool(pool, _check_beat)


def _run_in_pool(pool: Any, function: Callable[[], None]) -> None:
    """Call a function in a slot of the pool. The pool `solo` calls the callback without asking whether there is one."""
    pool.apply_async(function, callback=lambda result: None)


def _check_beat() -> None:
    close_old_connections()
    _beat_substitute.check()


def _write_heartbeat() -> None:
    close_old_connections()
    heartbeats.write_heartbeat(HeartbeatKind.WORKER)


@signals.worker_process_shutdown.connect
def _stop_resident_drain(**kwargs: object) -> None:
    """Let the sends in flight of a forked process end, and settle them."""
    _stopping.set()
    for resident in _resident_drains:
        resident.stop(service_options().lease)
    _process_drain.relay.stop()


@signals.worker_shutdown.connect
def _unregister_worker(**kwargs: object) -> None:
    _process_drain.delayed_nudge.cancel()
    _stop_resident_drain()
    heartbeats.delete_worker_heartbeat()
    connection.close()


# Acknowledged late, so that a first send does not wait for the acknowledgement. A second drain does no harm.
@shared_task(name=TASK, ignore_result=True, acks_late=True, bind=True, base=PeriodicTask)
def deliver_due(self: Task[[], None]) -> None:
    """Drain the due records. Beat requests it as the retry sweep; a nudge requests it at once.

    A process runs one drain at a time. A call that finds a drain running wakes it up instead: the drain claims
    again. So slow sends hold neither a worker's slot nor a database connection.
    """
    _process_drain.mark_nudge()
    _process_drain.run()
    if (self.request.headers or {}).keys() & {BEAT_HEADER, PERIOD_HEADER}:  # beat of an older release sends no period
        heartbeats.record_heartbeat(HeartbeatKind.SWEEP)


# Acknowledged early: the next evaluation makes up for a lost one.
@shared_task(name=WATCH, ignore_result=True, acks_late=False, base=PeriodicTask)
def watch() -> None:
    """Evaluate the alert conditions and send alerts. A separate task, so that a slow receiver delays no sweep."""
    alerts.evaluate()


# Acknowledged early: the next purge deletes what a lost one did not.
@shared_task(name=PURGE, ignore_result=True, acks_late=False, base=PeriodicTask)
def purge_notifications() -> None:
    """Delete final records older than RETENTION_DAYS, for some seconds. Without that setting nothing is deleted.

    Old counters are rolled up as well: hours are merged, totals stay the same.
    """
    roll_up()
    if days := service_options().retention_days:
        purge(retention_cutoff(days), budget=PURGE_BUDGET_SECONDS, should_stop=_stopping.is_set)


# Acknowledged early: beat sends the next message within seconds.
@shared_task(name=RUN_REPLAYS, ignore_result=True, acks_late=False, base=PeriodicTask)
def run_replays() -> None:
    """Run the batches of replay operations that become due within some seconds. A process has one run at a time."""
    _replay_wakeup.set()
    while _replay_wakeup.is_set() and _replay_lock.acquire(blocking=False):
        try:
            _replay_wakeup.clear()
            run_due_batches(REPLAY_BUDGET_SECONDS, should_stop=_stopping.is_set)
        finally:
            _replay_lock.release()


# Acknowledged early: beat sends the next message within seconds.
@shared_task(name=RUN_DUE_JOBS, ignore_result=True, acks_late=False, base=PeriodicTask)
def publish_due_jobs() -> None:
    """Publish the events of due jobs."""
    run_due_jobs(publish_event, budget=DUE_JOBS_BUDGET_SECONDS, should_stop=_stopping.is_set)


# Acknowledged late: until the row is committed, the request exists only in this message.
@shared_task(name=FEISHU_REQUESTED, ignore_result=True, acks_late=True, typing=False, base=EventTask)
def handle_feishu_requested(*args: Any, **kwargs: Any) -> dict[str, Any] | None:
    """Handle one event from another Celery app. docs/events.md describes its payload.

    Args:
        args: Exactly one positional argument, the payload. The keyword `payload` is accepted as well.
        kwargs: Nothing else.

    Returns:
        The HandleResult as JSON values: the record as it is stored, before its first attempt; the state of the existing
        record for a duplicate. None for a payload that was rejected and stored as a RejectedRequest.
    """
    result = _handle_event(FEISHU_REQUESTED, _store_event, args, kwargs)
    return cast("dict[str, Any] | None", result)


def _store_event(payload: Any) -> dict[str, Any]:
    """Store an event and wake a drain after the commit. So no event holds a slot for a key or an endpoint."""
    while True:
        # The record is read before the commit, after which a drain may claim it.
        with transaction.atomic():
            result = find_result(request_notification(payload))
        if result:
            return result.as_json()
        # A purge deleted the old record meanwhile, so its key is free again.


@shared_task(name=REQUESTED, ignore_result=True, acks_late=True, typing=False, base=EventTask)
def handle_requested(*args: Any, **kwargs: Any) -> None:
    """Handle one message from another Celery app. Its only argument has the fields of docs/messages.md."""
    _handle_event(REQUESTED, notify_from_event, args, kwargs)


@shared_task(name=TRIGGERED, ignore_result=True, acks_late=True, typing=False, base=EventTask)
def handle_triggered(*args: Any, **kwargs: Any) -> None:
    """Handle one trigger. Its only argument is the payload of docs/events.md. A rejected payload is stored."""
    _handle_event(TRIGGERED, request_triggered, args, kwargs)


def _handle_event(
    source: str, handle: Callable[[Any], object], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> object:
    """Handle an event's only argument. Store a rejected payload; requeue the event while PostgreSQL is away."""
    payload: Any = args[0] if args else kwargs.pop("payload", None)
    try:
        if args[1:] or kwargs:
            payload = {"args": list(args), "kwargs": kwargs}
            raise InvalidNotification([("payload", "must be the only argument")])
        return handle(payload)
    except InvalidNotification as error:
        _store_rejected(source, payload, error)
    except (OperationalError, InterfaceError) as error:
        _requeue(error)
    return None


def _store_rejected(source: str, payload: Any, error: InvalidNotification) -> None:
    try:
        NotificationService().reject(source, payload, error)
    except (OperationalError, InterfaceError) as database_error:
        _requeue(database_error)


def _requeue(error: Exception) -> NoReturn:
    """Return the message to the queue. A second handling is safe because of the dedupe key."""
    logger.warning("event requeued: %s", type(error).__name__, extra={"event": "event.put_back"})
    time.sleep(REQUEUE_DELAY_SECONDS)
    raise Reject(type(error).__name__, requeue=True) from None
