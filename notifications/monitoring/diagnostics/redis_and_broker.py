"""What Redis and the broker say: whether they keep what they are given, and how much of it waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis
from celery import current_app
from django.utils.translation import gettext, ngettext

from notifications.broker.nudge import broker as broker_link
from notifications.conf import service_options
from notifications.monitoring.diagnostics.check_result import ERROR, OK, WARNING, Sign

LONG_QUEUE = 1000
"""Messages in a queue that are a backlog: workers take thousands in a minute."""


def redis_server() -> Iterator[Sign]:
    """Whether Redis answers, and keeps what it is given."""
    options = service_options()
    if not options.redis_url:
        remedy = gettext("Set NOTIFICATIONS_REDIS_URL: without locks and nudges the claim alone guards.")
        yield Sign(name="redis", state=WARNING, text=gettext("none is configured"), remedy=remedy)
        return
    try:
        with redis.Redis.from_url(options.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
            facts: dict[str, Any] = client.info()
    except redis.RedisError as error:
        text = gettext("it does not answer: %(error)s") % {"error": type(error).__name__}
        remedy = gettext("Is it running, and is REDIS_URL right? Until then only sweeps and deliver_due deliver.")
        yield Sign(name="redis", state=ERROR, text=text, remedy=remedy)
        return
    yield from _redis_facts(facts)


def _redis_facts(facts: dict[str, Any]) -> Iterator[Sign]:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        text = gettext("maxmemory-policy is %(policy)s: it may throw queued events away") % {"policy": policy}
        remedy = gettext("Set maxmemory-policy noeviction, and share it with no cache.")
        yield Sign(name="redis", state=ERROR, text=text, remedy=remedy)
    elif not facts.get("aof_enabled", 1):
        text = gettext("appendonly is off: events that wait are lost when it crashes")
        yield Sign(name="redis", state=WARNING, text=text, remedy=gettext("Set appendonly yes."))
    else:
        yield Sign(name="redis", state=OK, text=gettext("it answers, and keeps what it is given"))


def broker() -> Iterator[Sign]:
    """Whether the broker answers, waits long enough for an event, and is emptied."""
    options, kind = service_options(), current_app.connection_for_write().transport.driver_type
    timeout = current_app.conf.broker_transport_options.get("visibility_timeout", 3600)
    needed = options.lock_wait + options.lease
    if kind == "redis" and timeout <= needed:
        text = gettext("visibility_timeout is %(timeout)d s: events come again while they are handled")
        remedy = gettext("Make it longer than LOCK_WAIT and LEASE together, %(needed)d s.") % {"needed": needed}
        yield Sign(name="broker", state=ERROR, text=text % {"timeout": timeout}, remedy=remedy)
    try:
        lengths = {name: _length(name) for name in current_app.amqp.queues}
    except Exception as error:  # whatever the broker's client raises; its text may name the address
        text = gettext("it does not answer: %(error)s") % {"error": type(error).__name__}
        remedy = gettext("Is it running, and is CELERY_BROKER_URL right?")
        yield Sign(name="broker", state=ERROR, text=text, remedy=remedy)
        return
    for name, length in lengths.items():
        text = ngettext(
            "%(count)d message waits in the queue %(queue)s", "%(count)d messages wait in the queue %(queue)s", length
        ) % {"count": length, "queue": name}
        if length < LONG_QUEUE:
            yield Sign(name="broker", state=OK, text=text)
        else:
            remedy = gettext("Start more workers, and see that they take this queue.")
            yield Sign(name="broker", state=ERROR, text=text, remedy=remedy)


def _length(queue: str) -> int:
    """Return how many messages wait; a queue that was never used has none."""
    link = broker_link()
    channel: Any = link.channel()
    with channel:
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except link.channel_errors:
            return 0
