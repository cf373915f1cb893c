"""Metrics for Prometheus, read from the tables: the same from every process, and not lost with any."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.db import connection
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

from notifications.monitoring import indicators as vitals
from notifications.states import Measure, Outcome, Status
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS

_TALLIES = """
SELECT measure, channel, outcome, error_code, bucket, sum(count)::bigint, sum(seconds)::float8
FROM notification_tallies
GROUP BY 1, 2, 3, 4, 5
ORDER BY 1, 2, 3, 4, 5
"""
_LIMITS = [*map(floatToGoString, BUCKET_BOUNDS_SECONDS), "+Inf"]

NAMES = (
    "notifications_attempts_total",
    "notifications_deliveries_total",
    "notifications_attempt_seconds",
    "notifications_delivery_seconds",
    "notifications_due",
    "notifications_in_flight",
    "notifications_waiting_for_retry",
    "notifications_oldest_due_age_seconds",
    "notifications_paused_channels",
    "notifications_rejected_last_hour",
    "notifications_heartbeat_age_seconds",
    "notifications_workers",
)
"""What dashboards and rules rely on."""

Buckets = dict[str, tuple[Counter[int], float]]
"""By channel: how often each bucket, and the sum of seconds."""


class TablesCollector(Collector):
    """Reads the tables anew for each scrape."""

    def collect(self) -> Iterator[Metric]:
        """Yield every metric. Raises DatabaseError when PostgreSQL is away."""
        yield from _waiting()
        yield from _state()
        yield from _silence()
        yield from _counted()


def exposition() -> bytes:
    """Return all metrics as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(list(TablesCollector().collect())))
    return generate_latest(registry)


class _Once(Collector):
    """What was collected already: the registry asks a collector twice, once for names."""

    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def _gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"notifications_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _waiting() -> Iterator[Metric]:
    due, flying, failing = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for kind in vitals.waiting():
        due[kind.channel] += kind.count * (kind.due and kind.status != Status.SENDING)
        flying[kind.channel] += kind.count * (kind.status == Status.SENDING)
        if kind.status == Status.FAILED:
            failing[kind.channel, kind.error_code] += kind.count
    text = f"Of the {vitals.COUNTED} unfinished records that are due first: "
    yield _gauge("due", text + "due and in nobody's hands", {(key,): n for key, n in due.items()}, "channel")
    yield _gauge("in_flight", text + "claimed by a worker", {(key,): n for key, n in flying.items()}, "channel")
    yield _gauge("waiting_for_retry", text + "failed, by the last error code", failing, "channel", "error_code")
    yield _gauge("oldest_due_age_seconds", "Age of the record that is due longest", {(): vitals.oldest_due_age()})


def _state() -> Iterator[Metric]:
    paused = {(channel,): float(count) for channel, count in vitals.paused_channels().items()}
    yield _gauge("paused_channels", "Users' channels that are paused", paused, "channel")
    yield _gauge("rejected_last_hour", "Requests refused within the last hour", {(): vitals.rejected_lately()})


def _silence() -> Iterator[Metric]:
    silent = vitals.silence()
    ages = {(name,): age for name, age in (("beat", silent.beat), ("sweep", silent.sweep)) if age is not None}
    yield _gauge("heartbeat_age_seconds", "Time since beat, or a sweep's end, was last heard of", ages, "name")
    yield _gauge("workers", "Worker processes heard of within the last minute", {(): silent.workers})


def _counted() -> Iterator[Metric]:
    attempts, ended = Counter[tuple[str, str, str]](), Counter[tuple[str, str]]()
    sending: Buckets = defaultdict(lambda: (Counter(), 0.0))
    delivering: Buckets = defaultdict(lambda: (Counter(), 0.0))
    with connection.cursor() as cursor:
        cursor.execute(_TALLIES)
        for measure, channel, outcome, code, bucket, count, seconds in cursor.fetchall():
            if measure == Measure.ATTEMPTS:
                attempts[channel, outcome, code] += count
                if outcome != Outcome.LOST:  # nobody knows how long it took
                    _add(sending, channel, bucket, count, seconds)
            else:
                ended[channel, outcome] += count
                if measure == Measure.DELIVERIES and outcome == Status.SENT:
                    _add(delivering, channel, bucket, count, seconds)
    yield _counter("attempts", "Attempts made", attempts, "channel", "outcome", "error_code")
    yield _counter("deliveries", "Records that became final, replayed ones again", ended, "channel", "status")
    yield _histogram("attempt_seconds", "How long endpoints took", sending)
    yield _histogram("delivery_seconds", "From the request, or its scheduled time, to the delivery", delivering)


def _add(buckets: Buckets, channel: str, bucket: int, count: int, seconds: float) -> None:
    counts, total = buckets[channel]
    counts[bucket] += count
    buckets[channel] = counts, total + seconds


def _counter(name: str, text: str, values: Mapping[Any, float], *labels: str) -> Metric:
    family = CounterMetricFamily(f"notifications_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, values: Buckets) -> Metric:
    family = HistogramMetricFamily(f"notifications_{name}", text, labels=("channel",))
    for channel, (counts, total) in values.items():
        running, buckets = 0, []
        for index, limit in enumerate(_LIMITS):
            running += counts[index]
            buckets.append((limit, float(running)))
        family.add_metric((channel,), buckets, total)
    return family
