"""Indicators: the few numbers by which delivery is judged. Each is read from an index, so that reading stays cheap."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import NamedTuple
from urllib.parse import urlsplit

from celery import current_app
from django.db import connection
from django.db.models import Count, F, Q
from django.db.models.functions import Now

from notifications.broker.redis_client import RedisUnavailable, gateway
from notifications.conf import service_options
from notifications.conf.redis_address import normalize_redis_address
from notifications.models import NotificationEvent, NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.sql import load_sql
from notifications.telemetry.heartbeats import LastHeartbeats, last_heartbeats
from notifications.user_keys import UserKey

MAX_COUNTED_ROWS = 100_000
"""Rows that are read to count something. A larger backlog is shown as this many."""
MAX_ENDPOINT_ROWS = 10_000
"""Rows that are read for the counts by endpoint. They are read at each scrape, and only who has the most matters."""
PROBLEM_PERIOD_SECONDS = 86_400.0
"""A dead notification and a rejected request are a problem for this time."""
MAX_ENDPOINTS = 20
"""Endpoints that the metrics name: a label must not have any number of values."""


class UnfinishedCount(NamedTuple):
    """How many records that are not final are alike."""

    channel: str
    status: str
    error_code: str
    """Error of the last attempt; empty where no attempt was made."""
    due: bool
    number: int


class EndpointCount(NamedTuple):
    """How many records of one endpoint are in flight and waiting."""

    channel: str
    user_id: UserKey | None
    """None for an endpoint that belongs to nobody."""
    endpoint_id: int | None
    """None for the user's endpoint without a label."""
    in_flight: int
    waiting: int


class DeadCount(NamedTuple):
    """How many dead records are alike."""

    channel: str
    error_code: str
    in_period: int
    """Became dead within PROBLEM_PERIOD_SECONDS."""
    recent: int
    """Became dead within ALERT_WINDOW."""


class RecentCount(NamedTuple):
    """A count, and how many of them are new."""

    total: int
    recent: int
    """Those of the last ALERT_WINDOW seconds."""


class SignalCounts(NamedTuple):
    """How many signals have not reached all of their receivers."""

    waiting: int
    given_up: int
    """Each attempt failed. They stay until an operator, or the purge, deletes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatAges:
    """Seconds since the last heartbeats; None: there never was one."""

    sweep: float | None
    """Since the last sweep finished."""
    beat: float | None
    """Since a sweep sent by beat last reached a worker."""
    worker: float | None
    """Since the newest heartbeat of a worker."""
    workers: int
    """Worker processes with a heartbeat within WORKER_TIMEOUT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisStatus:
    """Whether the Redis of locks and nudges answers."""

    configured: bool
    milliseconds: float | None = None
    """Time of one round trip; None: no answer, or not configured."""

    @property
    def away(self) -> bool:
        """Whether Redis is configured and does not answer."""
        return self.configured and self.milliseconds is None


class Indicators:
    """All indicators. Each is read when it is first used, and only once.

    Reading one raises DatabaseError when PostgreSQL is away; `redis` never does.
    """

    @cached_property
    def heartbeats(self) -> LastHeartbeats:
        """The last heartbeats."""
        return last_heartbeats()

    @cached_property
    def heartbeat_ages(self) -> HeartbeatAges:
        """Seconds since the last heartbeats, by PostgreSQL's clock."""
        last = self.heartbeats

        def age(moment: datetime | None) -> float | None:
            return (last.now - moment).total_seconds() if moment else None

        return HeartbeatAges(
            sweep=age(last.sweep), beat=age(last.beat), worker=age(last.last_worker), workers=last.workers
        )

    @cached_property
    def oldest_due_age(self) -> float:
        """Seconds since the record that is due longest became due; 0 when none is due."""
        due = NotificationRecord.objects.filter(next_attempt_at__lte=Now()).order_by("next_attempt_at")
        age: timedelta | None = due.values_list(Now() - F("next_attempt_at"), flat=True).first()
        return age.total_seconds() if age else 0.0

    @cached_property
    def unfinished(self) -> list[UnfinishedCount]:
        """Counts of the records that are not final, among the MAX_COUNTED_ROWS that are due first."""
        with connection.cursor() as cursor:
            cursor.execute(load_sql("notifications.monitoring", "count_unfinished"), {"max_rows": MAX_COUNTED_ROWS})
            return [UnfinishedCount(*row) for row in cursor.fetchall()]

    @cached_property
    def endpoints(self) -> list[EndpointCount]:
        """Counts of the endpoints with the most records, among the MAX_ENDPOINT_ROWS that are due first."""
        parameters = {"max_rows": MAX_ENDPOINT_ROWS, "max_endpoints": MAX_ENDPOINTS}
        with connection.cursor() as cursor:
            cursor.execute(load_sql("notifications.monitoring", "count_by_endpoint"), parameters)
            return [EndpointCount(*row) for row in cursor.fetchall()]

    @cached_property
    def dead(self) -> list[DeadCount]:
        """Counts of dead records by channel and error code, the most frequent first."""
        parameters = {
            "period": PROBLEM_PERIOD_SECONDS,
            "recent": service_options().alert_window,
            "max_rows": MAX_COUNTED_ROWS,
        }
        with connection.cursor() as cursor:
            cursor.execute(load_sql("notifications.monitoring", "count_dead"), parameters)
            return [DeadCount(*row) for row in cursor.fetchall()]

    @cached_property
    def paused(self) -> Mapping[str, RecentCount]:
        """Counts of users' channels that are paused now, by channel name."""
        recently = Q(paused_at__gt=Now() - timedelta(seconds=service_options().alert_window))
        paused = UserNotificationChannel.objects.filter(paused_at__isnull=False).order_by("channel").values("channel")
        counts = paused.annotate(total=Count("pk"), recent=Count("pk", filter=recently))
        return {row["channel"]: RecentCount(row["total"], row["recent"]) for row in counts}

    @cached_property
    def rejected(self) -> RecentCount:
        """Count of requests that were rejected within PROBLEM_PERIOD_SECONDS."""
        return count_rejected(PROBLEM_PERIOD_SECONDS, service_options().alert_window)

    @cached_property
    def signals(self) -> SignalCounts:
        """Counts of the signals that have not reached all of their receivers, of MAX_COUNTED_ROWS at most."""
        rows = NotificationEvent.objects.order_by("pk")[:MAX_COUNTED_ROWS]
        counts = rows.aggregate(waiting=Count("next_attempt_at"), all=Count("pk"))
        return SignalCounts(waiting=counts["waiting"], given_up=counts["all"] - counts["waiting"])

    @cached_property
    def redis(self) -> RedisStatus:
        """Whether Redis answers a ping within REDIS_TIMEOUT."""
        if not service_options().redis_url:
            return RedisStatus(configured=False)
        started = time.perf_counter()
        try:
            gateway().run(lambda client: client.ping())
        except RedisUnavailable:
            return RedisStatus(configured=True)
        return RedisStatus(configured=True, milliseconds=(time.perf_counter() - started) * 1000)


def count_rejected(period_seconds: float, recent_seconds: float) -> RecentCount:
    """Count rejected requests.

    Args:
        period_seconds: Requests of so many last seconds are counted in `total`.
        recent_seconds: Requests of so many last seconds are counted in `recent`.

    Returns:
        Both counts, of MAX_COUNTED_ROWS at most.
    """

    def within(seconds: float) -> Q:
        return Q(created_at__gt=Now() - timedelta(seconds=seconds))

    newest = RejectedRequest.objects.filter(within(max(period_seconds, recent_seconds))).order_by("-created_at")
    counts = newest[:MAX_COUNTED_ROWS].aggregate(
        total=Count("pk", filter=within(period_seconds)), recent=Count("pk", filter=within(recent_seconds))
    )
    return RecentCount(**counts)


def redis_is_broker() -> bool:
    """Return whether REDIS_URL and Celery's broker are the same Redis server, whatever their database numbers."""
    try:
        broker = current_app.connection_for_write()
        if broker.transport.driver_type != "redis":
            return False
        own = urlsplit(normalize_redis_address(service_options().redis_url))
    except (ImportError, KeyError, ValueError):  # an address that no client can use; checks E015 and E016 name it
        return False
    return (own.hostname or "localhost", own.port or 6379) == (broker.hostname or "localhost", broker.port or 6379)
