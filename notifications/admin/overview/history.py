"""What the tallies say of the last hours and days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.utils import timezone

from notifications.states import Measure
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS

QUANTILES = (50, 95, 99)

# Summed up by the hour first: to find the reader's day of each row would take longer. Shards only spread locks.
_READ = """
SELECT date_trunc(%(unit)s, hour, %(zone)s), measure, outcome, attempts, bucket, sum(count)::bigint
FROM (
    SELECT hour, measure, outcome, attempts, CASE WHEN measure = 'attempts' THEN 0 ELSE bucket END AS bucket,
           sum(count) AS count
    FROM notification_tallies
    WHERE measure = ANY(%(measures)s) AND hour >= %(since)s AND hour <= %(until)s
    GROUP BY 1, 2, 3, 4, 5
) AS hours
GROUP BY 1, 2, 3, 4, 5
"""
_FAILING = """
SELECT outcome, error_code, sum(count)::bigint
FROM notification_tallies
WHERE measure = %(measure)s AND hour >= %(since)s AND hour <= %(until)s
GROUP BY 1, 2
"""


class Tallied(NamedTuple):
    """How often one thing happened in one step; `bucket` is left out of attempts."""

    step: datetime
    measure: str
    outcome: str
    attempts: int
    bucket: int
    number: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in equal steps, the last of which is now."""

    name: str
    unit: str
    steps: tuple[datetime, ...]

    def read(self) -> list[Tallied]:
        """Return what was tallied in it."""
        parameters: dict[str, Any] = {
            "unit": self.unit,
            "zone": timezone.get_current_timezone_name(),
            "measures": Measure.values,
            "since": self.steps[0],
            "until": timezone.now(),
        }
        with connection.cursor() as cursor:
            cursor.execute(_READ, parameters)
            return [Tallied(*row) for row in cursor.fetchall()]


def last_day(now: datetime) -> Span:
    """Return the last 24 hours, the one under way included."""
    # In UTC, as the tallies are: an hour of the reader's may begin at half past.
    hour = now.replace(minute=0, second=0, microsecond=0)
    return Span("day", "hour", tuple(hour - timedelta(hours=back) for back in range(23, -1, -1)))


def last_month(now: datetime) -> Span:
    """Return the last 30 days of the reader's calendar, today included."""
    today = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    days = (today - timedelta(days=back) for back in range(29, -1, -1))
    return Span("month", "day", tuple(timezone.make_aware(day) for day in days))


def recent_attempts(now: datetime) -> Counter[tuple[str, str]]:
    """Return the attempts of this hour and the last by (outcome, error code)."""
    with connection.cursor() as cursor:
        since = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
        cursor.execute(_FAILING, {"measure": Measure.ATTEMPTS.value, "since": since, "until": now})
        return Counter({(outcome, code): count for outcome, code, count in cursor.fetchall()})


def percentile(buckets: Mapping[int, int], percent: int) -> float | None:
    """Return the seconds below which `percent` of a histogram lie, taking each bucket as evenly filled.

    None for an empty histogram. Beyond the last bound nothing is known but that bound.
    """
    wanted = sum(buckets.values()) * percent / 100
    if not wanted:
        return None
    passed = 0
    for bucket in sorted(buckets):
        count = buckets[bucket]
        if passed + count >= wanted and bucket < len(BUCKET_BOUNDS_SECONDS):
            low = BUCKET_BOUNDS_SECONDS[bucket - 1] if bucket else 0.0
            return low + (BUCKET_BOUNDS_SECONDS[bucket] - low) * (wanted - passed) / count
        passed += count
    return BUCKET_BOUNDS_SECONDS[-1]
