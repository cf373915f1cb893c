"""Metrics for Prometheus. Read from the tables, so all processes export the same, and a crash loses none."""

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

from notifications.conf import service_options
from notifications.monitoring.indicators import (
    MAX_COUNTED_ROWS,
    MAX_ENDPOINT_ROWS,
    MAX_ENDPOINTS,
    Indicators,
    count_rejected,
)
from notifications.sql import load_sql
from notifications.states import FINAL, Measure, Outcome, Status
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS

_LE_LABELS = [*map(floatToGoString, BUCKET_BOUNDS_SECONDS), "+Inf"]

NAMES = (
    "notifications_attempts_total",
    "notifications_deliveries_total",
    "notifications_attempt_seconds",
    "notifications_delivery_seconds",
    "notifications_due",
    "notifications_in_flight",
    "notifications_endpoint_in_flight",
    "notifications_endpoint_waiting",
    "notifications_waiting_for_retry",
    "notifications_oldest_due_age_seconds",
    "notifications_paused_channels",
    "notifications_rejected_last_hour",
    "notifications_signals",
    "notifications_heartbeat_age_seconds",
    "notifications_workers",
    "notifications_loop_lag_seconds",
)
"""All metrics. Dashboards and alert rules of projects rely on these names."""

Buckets = dict[str, tuple[Counter[int], float]]
"""By channel: a count for each bucket, and the sum of seconds."""


class TablesCollector(Collector):
    """Reads the tables for each scrape."""

    def collect(self) -> Iterator[Metric]:
        """Yield every metric.

        Raises:
            DatabaseError: PostgreSQL is away.
        """
        indicators = Indicators()
        yield from _collect_unfinished(indicators)
        yield from _collect_problems(indicators)
        yield from _collect_heartbeats(indicators)
        yield from _collect_counters()


def exposition() -> bytes:
    """Return all metrics in Prometheus' text format.

    Raises:
        DatabaseError: PostgreSQL is away.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_CollectedMetrics(list(TablesCollector().collect())))
    return generate_latest(registry)


class _CollectedMetrics(Collector):
    """Metrics that were collected already. A registry calls a collector twice, once only for the names."""

    def __init__(self, metrics: list[Metric]) -> None:
        self.metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def _gauge(name: str, text: str, values: Mapping[Any, float], *labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"notifications_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _collect_unfinished(indicators: Indicators) -> Iterator[Metric]:
    channels = dict.fromkeys(service_options().providers, 0)
    due, in_flight, failing = Counter(channels), Counter(channels), Counter[tuple[str, str]]()
    for group in indicators.unfinished:
        due[group.channel] += group.number * (group.due and group.status != Status.SENDING)
        in_flight[group.channel] += group.number * (group.status == Status.SENDING)
        if group.status == Status.FAILED:
            failing[group.channel, group.error_code] += group.number
    text = f"Of the {MAX_COUNTED_ROWS} unfinished records that are due first: "
    yield _gauge("due", text + "due and not claimed", {(key,): n for key, n in due.items()}, "channel")
    yield _gauge("in_flight", text + "claimed by a worker", {(key,): n for key, n in in_flight.items()}, "channel")
    yield _gauge("waiting_for_retry", text + "failed, by the last error code", failing, "channel", "error_code")
    busiest = {
        (item.channel, *("" if key is None else str(key) for key in (item.user_id, item.endpoint_id))): item
        for item in indicators.endpoints
    }
    in_flight_by_endpoint = {key: float(item.in_flight) for key, item in busiest.items()}
    waiting_by_endpoint = {key: float(item.waiting) for key, item in busiest.items()}
    text = f"Of the {MAX_ENDPOINT_ROWS} that are due first, the {MAX_ENDPOINTS} endpoints with the most: "
    labels = ("channel", "user", "endpoint")
    yield _gauge("endpoint_in_flight", text + "claimed by a worker", in_flight_by_endpoint, *labels)
    yield _gauge("endpoint_waiting", text + "waiting or held", waiting_by_endpoint, *labels)
    age = indicators.oldest_due_age
    yield _gauge("oldest_due_age_seconds", "Age of the record that is due longest", {(): age})


def _collect_problems(indicators: Indicators) -> Iterator[Metric]:
    paused = {(channel,): 0.0 for channel in service_options().providers}
    paused |= {(channel,): float(count.total) for channel, count in indicators.paused.items()}
    yield _gauge("paused_channels", "Users' channels that are paused", paused, "channel")
    rejected = count_rejected(3600.0, 3600.0).total
    yield _gauge("rejected_last_hour", "Requests rejected within the last hour", {(): rejected})
    signals = {("waiting",): float(indicators.signals.waiting), ("given_up",): float(indicators.signals.given_up)}
    yield _gauge("signals", "Signals that wait for their receivers, and signals that were given up", signals, "state")


def _collect_heartbeats(indicators: Indicators) -> Iterator[Metric]:
    last = indicators.heartbeat_ages
    ages = {(name,): age for name, age in (("beat", last.beat), ("sweep", last.sweep)) if age is not None}
    yield _gauge("heartbeat_age_seconds", "Time since the last heartbeat of beat, and the last sweep", ages, "name")
    yield _gauge("workers", "Worker processes with a heartbeat within the last minute", {(): last.workers})
    lag = indicators.heartbeats.loop_lag
    text = "Longest time for which a worker did not look at its sends in flight, since its heartbeat before"
    yield _gauge("loop_lag_seconds", text, {} if lag is None else {(): lag})


def _collect_counters() -> Iterator[Metric]:
    attempts = Counter[tuple[str, str, str]]()
    # From the start: Prometheus sees no increase in a counter that begins with 1.
    final = Counter({(channel, status.value): 0 for channel in service_options().providers for status in FINAL})
    sending: Buckets = defaultdict(lambda: (Counter(), 0.0))
    delivering: Buckets = defaultdict(lambda: (Counter(), 0.0))
    with connection.cursor() as cursor:
        cursor.execute(load_sql("notifications.monitoring", "sum_counters"))
        for measure, channel, outcome, code, bucket, count, seconds in cursor.fetchall():
            if measure == Measure.ATTEMPTS:
                attempts[channel, outcome, code] += count
                if outcome != Outcome.LOST:  # its duration is unknown
                    _add(sending, channel, bucket, count, seconds)
            else:
                final[channel, outcome] += count
                if measure == Measure.DELIVERIES and outcome == Status.SENT:
                    _add(delivering, channel, bucket, count, seconds)
    yield _counter("attempts", "Attempts made", attempts, "channel", "outcome", "error_code")
    yield _counter("deliveries", "Records that became final, replayed ones again", final, "channel", "status")
    yield _histogram("attempt_seconds", "Seconds that endpoints took", sending)
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
        cumulative, buckets = 0, []
        for index, limit in enumerate(_LE_LABELS):
            cumulative += counts[index]
            buckets.append((limit, float(cumulative)))
        family.add_metric((channel,), buckets, total)
    return family
