"""The nudge, which wakes a drain: by a notification of PostgreSQL, through Redis, or with a `deliver_due` message.

A worker listens in one of the first two ways; the message is for those that listen in neither.

A lost nudge delays notifications and loses none.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from celery import current_app
from django.db import Error, connection, transaction
from kombu import Connection
from kombu.pools import producers

from notifications.beat import DELIVER_DUE, RUN_REPLAYS
from notifications.broker.event_messages import HIDDEN
from notifications.broker.notify_wakeups import notify_listeners
from notifications.broker.redis_client import RedisUnavailable, gateway
from notifications.broker.redis_wakeups import wake_listener
from notifications.conf import ServiceOptions, service_options
from notifications.conf.options import NUDGE_CELERY, NUDGE_NOTIFY, NUDGE_REDIS

logger = logging.getLogger("notifications.nudge")

TASK = DELIVER_DUE
NUDGE_KEY = "nudge"
"""Redis key, without the prefix, that exists while a nudge is queued. A nudge older than its TTL counts as lost."""

CONFIRMED = {"confirm_publish": True, "read_timeout": 1, "write_timeout": 1}
"""Options for RabbitMQ, in seconds: each message is confirmed, as Redis does anyway, and no wait is endless."""


def nudge() -> bool:
    """Wake a drain, unless a nudge is on its way already. Never raises, and never blocks for long.

    Returns:
        Whether a listener was woken or a message queued. False also if none of the ways of NUDGE is available: the
        next sweep finds the records.
    """
    options = service_options()
    woken = _nudge_by_notify(options)
    return _nudge_by_redis_or_message(options) if woken is None else woken


def nudge_on_commit() -> None:
    """Nudge once after the commit, however many requests the transaction makes."""
    # A savepoint that is rolled back takes the planned nudge along only if it takes this request along, too.
    if not any(planned[1] is _nudge_after_commit for planned in connection.run_on_commit[-1:]):
        transaction.on_commit(_nudge_after_commit, robust=True)


def _nudge_after_commit() -> None:
    # Not a lambda: Django reads the __qualname__ of a robust hook that fails.
    nudge()


def nudge_all() -> None:
    """Wake all drains that listen, because more records are due than this process can send, or because it stops."""
    options = service_options()
    notified = _nudge_by_notify(options, to_all=True)
    # Some workers of a fleet may listen at Redis.
    _nudge_by_redis_or_message(options, messages=notified is None)


def _nudge_by_notify(options: ServiceOptions, *, to_all: bool = False) -> bool | None:
    if NUDGE_NOTIFY not in options.nudge_ways:
        return None
    try:
        return notify_listeners(to_all=to_all)
    except Error as error:  # its queue is full, the role may not use the sequence, or PostgreSQL is away
        logger.warning("nudge not sent: %s", type(error).__name__, extra={"event": "nudge.failed"})
        return None


def _nudge_by_redis_or_message(options: ServiceOptions, *, messages: bool = True) -> bool:
    listeners = NUDGE_REDIS in options.nudge_ways
    messages = messages and NUDGE_CELERY in options.nudge_ways
    if not (listeners or messages):
        return False
    try:
        woken = wake_listener(NUDGE_KEY, ttl=options.nudge_ttl, listeners=listeners, messages=messages)
        if woken is None:
            _publish(TASK)
    except RedisUnavailable:
        return False
    except Exception as error:
        # The request has committed. No exception of the broker's client may fail it, because a nudge is only a hint.
        logger.warning("nudge not queued: %s", type(error).__name__, extra={"event": "nudge.failed"})
        return False
    return woken is not False


def mark_nudge_received() -> None:
    """Allow the next nudge to be queued in Redis or as a message. A drain calls this before it reads the table."""
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


def publish_periodic(task: str, headers: dict[str, Any]) -> None:
    """Send the message of a periodic task, as beat does.

    Args:
        task: The name of the task.
        headers: The headers of its entry.

    Raises:
        Exception: The broker did not accept the message. The type depends on the broker's client.
    """
    _publish(task, headers=headers)


def _publish(task: str, *args: Any, headers: dict[str, Any] | None = None) -> None:
    # No queue is named: the project's task_routes decide; by default it is Celery's own queue.
    with producers[broker()].acquire(block=True, timeout=1) as producer:
        try:
            current_app.send_task(
                task,
                args=args,
                headers=headers,
                producer=producer,
                retry=False,
                ignore_result=True,
                argsrepr=HIDDEN,
                kwargsrepr=HIDDEN,
            )
        except Exception:
            # A confirmation that comes late would be taken for that of the next message on this connection.
            producer.connection.close()
            raise


@lru_cache(maxsize=1)
def broker() -> Connection:
    """Return a connection to the broker with short timeouts. The worker's own connection needs long ones."""
    transport_options: dict[str, Any] = (
        dict(current_app.conf.broker_transport_options)
        | {
            "socket_timeout": 1,
            "socket_connect_timeout": 1,
            "max_retries": 0,
        }
        | CONFIRMED
    )
    connection: Connection = current_app.connection_for_write(transport_options=transport_options)
    return connection
