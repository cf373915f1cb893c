"""A nudge: one queued `deliver_due` message that says "there is work". Losing it costs time, never a notification."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from celery import current_app
from kombu import Connection
from kombu.pools import producers

from notifications.beat import DELIVER_DUE, RUN_REPLAYS
from notifications.broker.redis_client import RedisAway, gateway
from notifications.conf import service_options

logger = logging.getLogger("notifications.nudge")

TASK = DELIVER_DUE
NUDGE_KEY = "nudge"
"""Redis key, without the prefix, that exists while a nudge is queued. Its TTL is the time after which one is lost."""


def nudge() -> bool:
    """Ask a worker to deliver what is due, unless somebody asked already. Never raises, never blocks for long.

    Returns whether a message was queued; False also when Redis or the broker is away: the sweep will find the rows.
    """
    ttl = int(service_options().nudge_ttl * 1000)
    try:
        if not gateway().run(lambda client: client.set(gateway().key(NUDGE_KEY), "1", nx=True, px=ttl)):
            return False
        _publish(TASK)
    except RedisAway:
        return False
    except Exception as error:
        # Whatever the broker's client raises, the caller's request has committed and must not fail for a hint.
        logger.warning("nudge not queued: %s", type(error).__name__, extra={"event": "nudge.failed"})
        return False
    return True


def nudge_arrived() -> None:
    """Let the next nudge be queued; called when a drain starts, before it looks at the table."""
    try:
        gateway().run(lambda client: client.delete(gateway().key(NUDGE_KEY)))
    except RedisAway:
        pass


def nudge_replays() -> bool:
    """Ask a worker to run replay operations. Never raises; where it is lost beat asks again within seconds."""
    try:
        _publish(RUN_REPLAYS)
    except Exception as error:
        logger.warning("nudge not queued: %s", type(error).__name__, extra={"event": "nudge.failed"})
        return False
    return True


def publish_event(event: str, payload: Any) -> None:
    """Send an event to the workers. Raises whatever the broker's client does when it is away."""
    _publish(event, payload)


def _publish(task: str, *args: Any) -> None:
    # No queue is named: each project routes the task to one that its workers consume, by default to Celery's own.
    with producers[broker()].acquire(block=True, timeout=1) as producer:
        current_app.send_task(task, args=args, producer=producer, retry=False, ignore_result=True)


@lru_cache(maxsize=1)
def broker() -> Connection:
    """Return a connection to the broker that gives up soon; the worker's own has to wait for messages and cannot."""
    impatient: dict[str, Any] = dict(current_app.conf.broker_transport_options) | {
        "socket_timeout": 1,
        "socket_connect_timeout": 1,
        "max_retries": 0,
    }
    connection: Connection = current_app.connection_for_write(transport_options=impatient)
    return connection
