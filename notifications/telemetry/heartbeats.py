"""Heartbeats: the last sign of life of beat, of the sweep and of each worker process, by PostgreSQL's clock."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.apps import apps
from django.db import Error
from django.db.models import Count, Max, Model, Q
from django.db.models.functions import Coalesce, Now

from notifications.states import HeartbeatKind
from notifications.telemetry.loop_lag import note_lag, take_largest_lag
from notifications.telemetry.process import worker_name

logger = logging.getLogger("notifications.heartbeats")

WRITE_INTERVAL_SECONDS = 20.0
"""A process writes each of its heartbeats at most this often: three times within WORKER_TIMEOUT."""
WORKER_TIMEOUT = timedelta(seconds=60)
"""A worker without a heartbeat for this time counts as lost."""
FORGET_WORKER_AFTER = timedelta(days=1)
"""A killed worker leaves its row behind. The next heartbeat deletes rows older than this."""
MAX_NAME_LENGTH = 191

_last_writes: dict[HeartbeatKind, float] = {}
"""When this process last wrote each heartbeat, on its monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastHeartbeats:
    """The last heartbeats, as the database has them."""

    now: datetime
    """PostgreSQL's time, to compare the others with."""
    beat: datetime | None
    """When a sweep sent by beat last reached a worker; None: never."""
    sweep: datetime | None
    """When a sweep, of beat or of the command `deliver_due`, last finished; None: never."""
    workers: int
    """Worker processes with a heartbeat within WORKER_TIMEOUT."""
    last_worker: datetime | None = None
    """The newest heartbeat of any worker process; None: no row is left."""
    loop_lag: float | None = None
    """The largest lag of the loop of any such worker, in seconds; None: nothing was in flight."""


def last_heartbeats() -> LastHeartbeats:
    """Return the last heartbeats.

    Raises:
        DatabaseError: PostgreSQL is away.
    """
    return LastHeartbeats(
        **_model()._default_manager.aggregate(
            now=Coalesce(Max(Now()), Now()),  # an aggregate, which has a value for an empty table too
            beat=Max("seen_at", filter=Q(kind=HeartbeatKind.BEAT)),
            sweep=Max("seen_at", filter=Q(kind=HeartbeatKind.SWEEP)),
            workers=Count("pk", filter=Q(kind=HeartbeatKind.WORKER, seen_at__gt=Now() - WORKER_TIMEOUT)),
            last_worker=Max("seen_at", filter=Q(kind=HeartbeatKind.WORKER)),
            loop_lag=Max("loop_lag", filter=Q(kind=HeartbeatKind.WORKER, seen_at__gt=Now() - WORKER_TIMEOUT)),
        )
    )


def record_heartbeat(kind: HeartbeatKind) -> None:
    """Write a heartbeat, at most every WRITE_INTERVAL_SECONDS. Never raises: delivery must not depend on it."""
    if reserve_write(kind):
        write_heartbeat(kind)


def reserve_write(kind: HeartbeatKind) -> bool:
    """Return True at most every WRITE_INTERVAL_SECONDS; the caller must then call `write_heartbeat`."""
    now = time.monotonic()
    if now - _last_writes.get(kind, -WRITE_INTERVAL_SECONDS) < WRITE_INTERVAL_SECONDS:
        return False
    _last_writes[kind] = now
    return True


def write_heartbeat(kind: HeartbeatKind) -> None:
    """Write a heartbeat now. Never raises: a failure is logged."""
    name = _worker_key() if kind == HeartbeatKind.WORKER else kind.value
    lag = take_largest_lag() if kind == HeartbeatKind.WORKER else None
    heartbeats = _model()._default_manager
    try:
        heartbeats.bulk_create(
            [_model()(name=name, kind=kind, seen_at=Now(), loop_lag=lag)],
            update_conflicts=True,
            unique_fields=["name"],
            update_fields=["seen_at", "loop_lag"],
        )
        if kind == HeartbeatKind.WORKER:
            old = heartbeats.filter(kind=HeartbeatKind.WORKER, seen_at__lt=Now() - FORGET_WORKER_AFTER)
            # Rows that another process deletes at the same time are skipped instead of waited for.
            heartbeats.filter(pk__in=old.select_for_update(skip_locked=True).values("pk")).delete()
    except Error as error:
        if lag is not None:
            note_lag(lag)  # the next heartbeat tells it
        _log_failure(error)


def take_turn(task: str, period: float) -> bool:
    """Take the message of a periodic task, unless a worker took another one within half of its period.

    So the messages that piled up while no worker ran are dropped, by PostgreSQL's clock alone. Half, because a message
    may be late while the next one is not. Never raises: without an answer of PostgreSQL the turn is taken.

    Args:
        task: The name of the task.
        period: Its interval in seconds.
    """
    tasks = _model()._default_manager
    name = f"task:{task}"[:MAX_NAME_LENGTH]
    # A time in the future was written before PostgreSQL's clock was set back.
    recent = Q(seen_at__gt=Now() - timedelta(seconds=period / 2), seen_at__lte=Now())
    try:
        if tasks.filter(name=name).exclude(recent).update(seen_at=Now()):
            return True
        return tasks.get_or_create(name=name, defaults={"kind": HeartbeatKind.TASK})[1]
    except Error as error:
        _log_failure(error)
        return True


def delete_worker_heartbeat() -> None:
    """Delete the heartbeat of this worker process, which stops. Never raises: a failure is logged."""
    try:
        _model()._default_manager.filter(name=_worker_key()).delete()
    except Error as error:
        _log_failure(error)


def _worker_key() -> str:
    return worker_name()[-MAX_NAME_LENGTH:]


def _model() -> type[Model]:
    # Resolved at run time: models is a layer above this one, so it cannot be imported.
    return apps.get_model("notifications", "Heartbeat")


def _log_failure(error: Error) -> None:
    # Only the type: the text may name the database's address.
    logger.warning("heartbeat not written: %s", type(error).__name__, extra={"event": "heartbeat.failed"})
