"""Checks of Redis, of Celery's broker and of nudges: whether data is kept, how many messages wait, who listens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis
from celery import current_app
from django.utils.translation import gettext, ngettext

from notifications.beat import beat_schedule
from notifications.broker.notify_wakeups import count_notify_listeners
from notifications.broker.nudge import broker
from notifications.broker.redis_client import RedisAddressError, RedisUnavailable, open_client
from notifications.broker.redis_wakeups import is_redis_listened_to
from notifications.conf import service_options
from notifications.conf.options import NUDGE_CELERY, NUDGE_NOTIFY, NUDGE_REDIS
from notifications.monitoring.diagnostics.check_result import ERROR, OK, WARNING, CheckResult

LONG_QUEUE_MESSAGES = 1000
"""A queue with so many messages is a backlog: workers take thousands in a minute."""
INFO_TIMEOUT_SECONDS = 2.0


def check_redis() -> Iterator[CheckResult]:
    """Check that Redis does not evict keys. Call it only while Redis answers, or where none is configured."""
    options = service_options()
    if not options.redis_url:
        remedy = gettext('Set NOTIFICATIONS["REDIS_URL"]. Without it there are no locks and no nudges.')
        yield CheckResult(name="redis", state=WARNING, text=gettext("Redis is not configured."), remedy=remedy)
        return
    try:
        with open_client(options.redis_url, timeout=INFO_TIMEOUT_SECONDS) as client:
            info: dict[str, Any] = client.info()
    except RedisAddressError as error:
        text = f'NOTIFICATIONS["REDIS_URL"] {error}.'
        yield CheckResult(name="redis", state=ERROR, text=text, remedy=gettext("See docs/settings.md."))
        return
    except redis.RedisError as error:
        text = gettext("Redis answers a ping, but not INFO: %(error)s.") % {"error": type(error).__name__}
        yield CheckResult(name="redis", state=WARNING, text=text, remedy=gettext("Allow the command INFO."))
        return
    yield _check_info(info)


def _check_info(info: dict[str, Any]) -> CheckResult:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        text = gettext("maxmemory-policy is %(policy)s: Redis may delete queued events.") % {"policy": policy}
        remedy = gettext("Set maxmemory-policy noeviction, and do not use the same Redis as a cache.")
        return CheckResult(name="redis", state=ERROR, text=text, remedy=remedy)
    if not info.get("aof_enabled", 1):
        text = gettext("appendonly is off: queued events are lost when Redis crashes.")
        return CheckResult(name="redis", state=WARNING, text=text, remedy=gettext("Set appendonly yes."))
    return CheckResult(name="redis", state=OK, text=gettext("Redis answers and does not delete queued events."))


def check_nudges() -> Iterator[CheckResult]:
    """Say how new notifications wake a worker.

    Raises:
        DatabaseError: PostgreSQL is away.
    """
    ways = service_options().nudge_ways
    listeners = count_notify_listeners() if NUDGE_NOTIFY in ways else 0
    if listeners:
        text = ngettext(
            "%(count)d worker listens for notifications of PostgreSQL.",
            "%(count)d workers listen for notifications of PostgreSQL.",
            listeners,
        ) % {"count": listeners}
    elif NUDGE_REDIS in ways and _is_redis_listened_to():
        text = gettext("Workers are woken through Redis.")
    elif NUDGE_CELERY in ways:
        text = gettext("No worker listens: workers are woken by messages of Celery.")
    elif not ways:
        text = gettext("NUDGE is none: new notifications wait for the sweep.")
    else:
        text = gettext("No worker listens: new notifications wait for the sweep.")
        remedy = gettext(
            "Start workers. If they run, their log says why they do not listen; NUDGE auto has other ways."
        )
        yield CheckResult(name="nudges", state=WARNING, text=text, remedy=remedy)
        return
    yield CheckResult(name="nudges", state=OK, text=text)


def _is_redis_listened_to() -> bool:
    try:
        return is_redis_listened_to()
    except RedisUnavailable:
        return False


def check_broker() -> Iterator[CheckResult]:
    """Check that the broker answers, and that no queue is long."""
    try:
        lengths = {name: _count_messages(name) for name in _queues()}
    except Exception as error:  # the broker's client may raise anything, and its package may be missing
        yield _report_broker_away(error)
        return
    for name, length in lengths.items():
        text = ngettext(
            "%(count)d message waits in the queue %(queue)s.", "%(count)d messages wait in the queue %(queue)s.", length
        ) % {"count": length, "queue": name}
        if length < LONG_QUEUE_MESSAGES:
            yield CheckResult(name="broker", state=OK, text=text)
        else:
            remedy = gettext("Start more workers, and check that they consume this queue.")
            yield CheckResult(name="broker", state=ERROR, text=text, remedy=remedy)


def _report_broker_away(error: Exception) -> CheckResult:
    # Only the type: the text may name the address.
    text = gettext("The broker does not answer: %(error)s.") % {"error": type(error).__name__}
    remedy = gettext("Start the broker, and check Celery's setting broker_url.")
    return CheckResult(name="broker", state=ERROR, text=text, remedy=remedy)


def _queues() -> list[str]:
    """Return the queues that the project's task_routes select for the tasks of this app."""
    current_app.loader.import_default_modules()
    own = {name for name, task in current_app.tasks.items() if type(task).__module__.startswith("notifications.")}
    names = own | {entry["task"] for entry in beat_schedule().values()}
    return sorted({current_app.amqp.router.route({}, name)["queue"].name for name in names})


def _count_messages(queue: str) -> int:
    """Return how many messages wait; a queue that was never used has none."""
    connection = broker()
    channel: Any = connection.channel()
    with channel:
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except connection.channel_errors:
            return 0
