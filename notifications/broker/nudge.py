"""The nudge: a `deliver_due` message that wakes a drain. A lost nudge delays notifications and loses none."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from celery import current_app
from kombu import Connection
from kombu.pools import producers

from notifications.beat import DELIVER_DUE, RUN_REPLAYS
from notifications.broker.redis_client import RedisUnavailable, gateway
from notifications.conf import service_options

logger = logging.getLogger("notifications.nudge")

TASK = DELIVER_DUE
NUDGE_KEY = "nudge"
"""Redis key, without the prefix, that exists while a nudge is queued. A nudge older than its TTL counts as lost."""


def nudge() -> bool:
    """Queue a `deliver_due` message, unless one is queued already. Never raises, and never blocks for long.

    Returns:
        Whether a message was queued. False also while Redis or the broker is unavailable: the next sweep finds the
        records.
    """
    ttl = int(service_options().nudge_ttl * 1000)
    try:
        if not gateway().run(lambda client: client.set(gateway().key(NUDGE_KEY), "1", nx=True, px=ttl)):
            return False
        _publish(TASK)
    except RedisUnavailable:
        return False
    except Exception as error:
        # The request has committed. No exception of the broker's client may fail it, because a nudge is only a hint.
        logger.warning("nudge not queued: %s", type(error).__name__, extra={"event": "nudge.failed"})
        return False
    return True


def mark_nudge_received() -> None:
    """Allow the next nudge to be queued. A drain calls this before it reads the table."""
    try:
        gateway().run(lambda client: client.delete(gateway().key(NUDGE_KEY)))
    except RedisUnavailable:
        pass


def nudge_replays() -> bool:
    """Queue a `run_replays` message. Never raises. If the message is lost, beat sends another within seconds.

    Returns:
        Whether a message was queued.
    """
    try:
        _publish(RUN_REPLAYS)
    except Exception as error:
        logger.warning("nudge not queued: %s", type(error).__name__, extra={"event": "nudge.failed"})
        return False
    return True


def publish_event(event: str, payload: Any) -> None:
    """Send an event to the workers.

    Args:
        event: The name of the task that handles the event.
        payload: Its only argument, as JSON values.

    Raises:
        Exception: The broker did not accept the message. The type depends on the broker's client.
    """
    _publish(event, payload)


def _publish(task: str, *args: Any) -> None:
    # No queue is named: the project's task_routes decide; by default it is Celery's own queue.
    with producers[broker()].acquire(block=True, timeout=1) as producer:
        current_app.send_task(task, args=args, producer=producer, retry=False, ignore_result=True)


@lru_cache(maxsize=1)
def broker() -> Connection:
    """Return a connection to the broker with short timeouts. The worker's own connection needs long ones."""
    transport_options: dict[str, Any] = dict(current_app.conf.broker_transport_options) | {
        "socket_timeout": 1,
        "socket_connect_timeout": 1,
        "max_retries": 0,
    }
    connection: Connection = current_app.connection_for_write(transport_options=transport_options)
    return connection
