"""Celery's side: the event entrance and the drain. A message is only a nudge, the row is the truth."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, cast

from celery import Task, shared_task, signals
from celery.exceptions import Reject
from django.db import InterfaceError, OperationalError, close_old_connections, connection

from notifications.api import request_triggered
from notifications.beat import BEAT_HEADER, PURGE, RUN_DUE_JOBS, RUN_REPLAYS, WATCH
from notifications.broker.nudge import TASK, nudge, nudge_arrived, publish_event
from notifications.conf import service_options
from notifications.delivery.engine import engine_with_redis
from notifications.ingest.triggers import TRIGGERED
from notifications.ingest.validation import InvalidNotification
from notifications.maintenance.job_scheduler import run_due_jobs
from notifications.maintenance.pruner import cutoff, purge
from notifications.monitoring.alerting import dispatcher as alerts
from notifications.replay.runner import run as run_operations
from notifications.service import NotificationService
from notifications.states import HeartbeatKind
from notifications.telemetry import heartbeats
from notifications.telemetry.counters import roll_up

logger = logging.getLogger("notifications.tasks")

FEISHU_REQUESTED = "notification.feishu.requested"
DATABASE_PAUSE = 2.0
"""Seconds an event waits before it goes back to the queue when PostgreSQL is away."""

PURGE_BUDGET = 5.0
"""Seconds one purge holds a worker's slot; beat's next one goes on."""

REPLAY_BUDGET = 10.0
"""Seconds one run of replay operations goes on; as long as beat's interval, so that one follows the other."""

JOBS_BUDGET = 10.0
"""Seconds one scan goes on while there are due jobs."""

_stopping = threading.Event()
_called = threading.Event()
_draining = threading.Lock()
_pools: list[Any] = []
"""The one this worker has, once it is ready."""
_called_to_replay = threading.Event()
_replaying = threading.Lock()


@signals.task_prerun.connect
def _drop_broken_connections(**kwargs: object) -> None:
    """A thread keeps its connection from task to task; one that PostgreSQL has closed must not fail them all."""
    close_old_connections()


@signals.worker_shutting_down.connect
def _stop_claiming(**kwargs: object) -> None:
    _stopping.set()


@signals.worker_ready.connect
def _know_the_pool(sender: Any, **kwargs: object) -> None:
    _pools[:] = [sender.pool]


@signals.heartbeat_sent.connect  # now and not later: Celery looks for receivers before the worker is ready
def _say_from_the_pool(**kwargs: object) -> None:
    """Let a slot write the heartbeat, on the connection it has: a worker whose slots are all stuck falls silent."""
    for pool in _pools:
        if heartbeats.reserve_write(HeartbeatKind.WORKER):
            pool.apply_async(_say)


def _say() -> None:
    close_old_connections()
    heartbeats.write_heartbeat(HeartbeatKind.WORKER)


@signals.worker_shutdown.connect
def _take_leave(**kwargs: object) -> None:
    heartbeats.delete_worker_heartbeat()
    connection.close()


# Acked late, so that the acknowledgement does not keep a first send waiting; a drain that runs twice does no harm.
@shared_task(name=TASK, ignore_result=True, acks_late=True, bind=True)
def deliver_due(self: Task[[], None]) -> None:
    """Drain what is due. Beat runs it as the retry sweep, nudges run it at once; any number may run together.

    One drain a process: where one runs already it is called to look again, so that slow sends cost threads and neither
    a worker's slot nor a database connection, and Python's one lock is not fought over.
    """
    by_beat = bool((self.request.headers or {}).get(BEAT_HEADER))
    if by_beat:
        heartbeats.record_heartbeat(HeartbeatKind.BEAT)
    if _draining.locked():
        nudge_arrived()  # the drain that runs has said so long ago
    _called.set()
    # Whoever calls while the other is about to end finds the lock free, or is seen by its next look at the flag.
    while _called.is_set() and _draining.acquire(blocking=False):
        try:
            _called.clear()
            engine = engine_with_redis(should_stop=_stopping.is_set, wakeup=_called)
            more = engine.deliver_due(on_backlog=nudge, on_started=nudge_arrived).has_more
        finally:
            _draining.release()
        if more or _stopping.is_set():  # what is left is for another worker, or for this one when it is up again
            nudge()
    if by_beat:
        heartbeats.record_heartbeat(HeartbeatKind.SWEEP)


# Acked early: the next look sees the same.
@shared_task(name=WATCH, ignore_result=True, acks_late=False)
def watch() -> None:
    """See whether something needs a person, and tell. A task of its own, so that a slow sink delays no sweep."""
    alerts.evaluate()


# Acked early: a purge that was lost is made up for by the next.
@shared_task(name=PURGE, ignore_result=True, acks_late=False)
def purge_notifications() -> None:
    """Delete what is older than RETENTION_DAYS, for a few seconds. Without that setting everything is kept.

    Old tallies are added up as well: what they count is kept, only their hours are not.
    """
    roll_up()
    if days := service_options().retention_days:
        purge(cutoff(days), budget=PURGE_BUDGET, should_stop=_stopping.is_set)


# Acked early: beat sends the next in some seconds.
@shared_task(name=RUN_REPLAYS, ignore_result=True, acks_late=False)
def run_replays() -> None:
    """Run the batches of replay operations that become due within some seconds; one run a process."""
    _called_to_replay.set()
    while _called_to_replay.is_set() and _replaying.acquire(blocking=False):
        try:
            _called_to_replay.clear()
            run_operations(REPLAY_BUDGET, should_stop=_stopping.is_set)
        finally:
            _replaying.release()


# Acked early: beat sends the next in some seconds.
@shared_task(name=RUN_DUE_JOBS, ignore_result=True, acks_late=False)
def publish_due_jobs() -> None:
    """Publish the events whose time has come."""
    run_due_jobs(publish_event, budget=JOBS_BUDGET, should_stop=_stopping.is_set)


# Acked late: until the row is committed this message is all there is of the request.
@shared_task(name=FEISHU_REQUESTED, ignore_result=True, acks_late=True, typing=False)
def handle_feishu_requested(*args: Any, **kwargs: Any) -> dict[str, Any] | None:
    """Take one event from another Celery app: one argument, the payload of docs/events.md.

    Returns the HandleResult as a dict; None for a payload that was refused and is kept as a RejectedRequest.
    """
    service = NotificationService()
    result = _take(FEISHU_REQUESTED, lambda payload: service.handle_feishu_requested(payload).as_json(), args, kwargs)
    return cast("dict[str, Any] | None", result)


@shared_task(name=TRIGGERED, ignore_result=True, acks_late=True, typing=False)
def handle_triggered(*args: Any, **kwargs: Any) -> None:
    """Take one trigger: one argument, its payload of docs/events.md. One that is refused is kept."""
    _take(TRIGGERED, request_triggered, args, kwargs)


def _take(source: str, handle: Callable[[Any], object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """Handle the one argument of an event; keep it if it is refused, put it back while PostgreSQL is away."""
    payload: Any = args[0] if args else kwargs.pop("payload", None)
    try:
        if args[1:] or kwargs:
            payload = {"args": list(args), "kwargs": kwargs}
            raise InvalidNotification([("payload", "must be the only argument")])
        return handle(payload)
    except InvalidNotification as error:
        _keep(source, payload, error)
    except (OperationalError, InterfaceError) as error:
        _put_back(error)
    return None


def _keep(source: str, payload: Any, error: InvalidNotification) -> None:
    try:
        NotificationService().reject(source, payload, error)
    except (OperationalError, InterfaceError) as away:
        _put_back(away)


def _put_back(error: Exception) -> NoReturn:
    """Return the message to the queue. Handling it again is safe, its dedupe key sees to that."""
    logger.warning("event put back: %s", type(error).__name__, extra={"event": "event.put_back"})
    time.sleep(DATABASE_PAUSE)
    raise Reject(type(error).__name__, requeue=True) from None
