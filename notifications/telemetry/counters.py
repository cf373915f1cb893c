"""Counters and histograms of attempts and deliveries, in the table notification_tallies.

The statement that stores results also counts them. Therefore a crash or a restart cannot make the counters wrong.
A row counts one thing in one hour. The same thing has several rows, the shards, so that workers rarely wait for each
other's row locks. A reader sums over the shards.
"""

from __future__ import annotations

import os
from typing import Any

from django.db import connection

from notifications.sql import load_sql
from notifications.states import Measure

BUCKET_BOUNDS_SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0),
)
"""Upper bounds of the buckets of a histogram. Bucket 0 ends at the first bound; the last bucket has no upper bound."""
SHARD_COUNT = 16
HOURLY_RETENTION_DAYS = 40
"""Older hours are added to one sum. The metrics need that sum; the charts need only the hours."""

COUNT_MEASUREMENTS = load_sql("notifications.telemetry", "count_measurements")
"""Part of a statement that counts the rows of a CTE `measurements`.

Its parameters are those of `count_parameters()` and `now`.
"""


def count_parameters() -> dict[str, Any]:
    """Return the parameters of `COUNT_MEASUREMENTS` except `now`: the shard of this process and the bucket bounds."""
    return {"shard": os.getpid() % SHARD_COUNT, "bounds": list(BUCKET_BOUNDS_SECONDS)}


def roll_up() -> None:
    """Add the hours older than HOURLY_RETENTION_DAYS to one sum. The totals over all rows stay the same."""
    with connection.cursor() as cursor:
        cursor.execute(
            load_sql("notifications.telemetry", "roll_up"), {"measures": Measure.values, "days": HOURLY_RETENTION_DAYS}
        )
