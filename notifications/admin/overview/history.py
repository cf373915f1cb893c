"""What the tallies say of the last hours and days."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.utils import timezone

from notifications.states import Measure
from notifications.tallies import BOUNDS

QUANTILES = (50, 95, 99)

Counts = Mapping[datetime, Counter[str]]
"""How often per step of time, and what."""


class Reading(NamedTuple):
    """Which tallies are read, and by what they are told apart."""

    measures: tuple[Measure, ...]
    what: str


# The zone makes a day the reader's. Shards only spread locks: they are summed over.
_READ = """
SELECT date_trunc(%(unit)s, hour, %(zone)s), {what}, sum(count)::bigint
FROM notification_tallies
WHERE measure = ANY(%(measures)s) AND hour >= %(since)s AND hour <= %(until)s
GROUP BY 1, 2
"""
OUTCOMES = Reading((Measure.ATTEMPTS,), "outcome")
"""Attempts by how they ended."""
TIMES = Reading((Measure.DELIVERIES,), "outcome || ' ' || bucket")
"""Records that became final, by status and the time it took; without replays, whose time means nothing."""
TRIES = Reading((Measure.DELIVERIES, Measure.REPLAYS), "outcome || ' ' || attempts")
"""Records that became final, by status and the attempts it took."""

_FAILING = """
SELECT outcome, error_code, sum(count)::bigint
FROM notification_tallies
WHERE measure = %(measure)s AND hour >= %(since)s AND hour <= %(until)s
GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in equal steps, the last of which is now."""

    name: str
    unit: str
    steps: tuple[datetime, ...]

    def read(self, reading: Reading) -> Counts:
        """Return the counts per step."""
        zone = timezone.get_current_timezone_name()
        found: defaultdict[datetime, Counter[str]] = defaultdict(Counter)
        with connection.cursor() as cursor:
            parameters: dict[str, Any] = {
                "unit": self.unit,
                "zone": zone,
                "measures": [measure.value for measure in reading.measures],
                "since": self.steps[0],
                "until": timezone.now(),
            }
            cursor.execute(_READ.format(what=reading.what), parameters)
            for step, what, count in cursor.fetchall():
                found[step][what] += count
        return found


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
        if passed + count >= wanted and bucket < len(BOUNDS):
            low = BOUNDS[bucket - 1] if bucket else 0.0
            return low + (BOUNDS[bucket] - low) * (wanted - passed) / count
        passed += count
    return BOUNDS[-1]
