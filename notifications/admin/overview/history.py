"""The counters of the last hours and days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from notifications import models
from notifications.clock import database_now
from notifications.sql import load_sql
from notifications.states import Measure
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS

PERCENTILES = (50, 95, 99)


class CounterRow(NamedTuple):
    """How often one thing happened in one step. `bucket` is 0 for attempts."""

    measure: str
    outcome: str
    attempts: int
    bucket: int
    step: datetime
    """Start of the hour or day."""
    number: int


@dataclass(frozen=True, slots=True)
class Span:
    """A time span in equal steps. The last step contains now."""

    name: str
    """Such as "day": part of the names of its charts."""
    unit: str
    """Length of a step: "hour" or "day"."""
    steps: tuple[datetime, ...]
    """When each step starts."""
    zone: str
    """The time zone whose hours or days the steps are."""

    def read_counters(self) -> list[CounterRow]:
        """Return the counters of the span, summed over channels, error codes and shards."""
        parameters: dict[str, Any] = {
            "unit": self.unit,
            "zone": self.zone,
            "measures": Measure.values,
            "since": self.steps[0],
            "until": database_now(),
        }
        with connection.cursor() as cursor:
            cursor.execute(load_sql("notifications.admin.overview", "read_counters"), parameters)
            return [CounterRow(*row) for row in cursor.fetchall()]


def last_day(now: datetime) -> Span:
    """Return the last 24 hours. The current hour is the last step."""
    # In UTC, as the counters are: in the reader's time zone an hour may start at half past.
    hour = now.replace(minute=0, second=0, microsecond=0)
    return Span("day", "hour", tuple(hour - timedelta(hours=back) for back in range(23, -1, -1)), "UTC")


def last_month(now: datetime) -> Span:
    """Return the last 30 days in the reader's time zone. Today is the last step."""
    today = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    days = (today - timedelta(days=back) for back in range(29, -1, -1))
    return Span("month", "day", tuple(timezone.make_aware(day) for day in days), timezone.get_current_timezone_name())


def recent_attempts(now: datetime) -> Counter[tuple[str, str]]:
    """Return the attempts of this hour and the last one by (outcome, error code)."""
    since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    attempts = models.Counter.objects.filter(measure=Measure.ATTEMPTS, hour__gte=since, hour__lte=now)
    rows = attempts.order_by().values_list("outcome", "error_code").annotate(number=Sum("count"))
    return Counter({(outcome, code): number for outcome, code, number in rows})


def percentile(buckets: Mapping[int, int], percent: int) -> float | None:
    """Return a percentile of a histogram, as if each bucket were evenly filled.

    Args:
        buckets: Counts by bucket number, see BUCKET_BOUNDS_SECONDS.
        percent: 1 to 99.

    Returns:
        Seconds; None for an empty histogram. A percentile in the last bucket, which has no upper bound, is the last
        bound.
    """
    rank = sum(buckets.values()) * percent / 100
    if not rank:
        return None
    cumulative = 0
    for bucket in sorted(buckets):
        count = buckets[bucket]
        if cumulative + count >= rank and bucket < len(BUCKET_BOUNDS_SECONDS):
            low = BUCKET_BOUNDS_SECONDS[bucket - 1] if bucket else 0.0
            return low + (BUCKET_BOUNDS_SECONDS[bucket] - low) * (rank - cumulative) / count
        cumulative += count
    return BUCKET_BOUNDS_SECONDS[-1]
