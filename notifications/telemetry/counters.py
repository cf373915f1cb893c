"""Tallies: counters and histograms, written down with the results they count, so that no crash or restart bends them.

A row counts one thing in one hour. Several rows, the shards, stand side by side for the same thing, so that workers
seldom wait for each other: whoever reads sums over them.
"""

from __future__ import annotations

import os
from typing import Any

from django.db import connection

from notifications.states import Measure

BOUNDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 1800.0, 3600.0, 21600.0, 86400.0),
)
"""Upper bounds of a histogram's buckets in seconds. Bucket 0 ends at the first; the last, len(BOUNDS), has no end."""
SHARDS = 16
KEEP_DAYS = 40
"""Days that keep their hours; what is older is one sum, which counters need and charts do not."""

# The rows are locked in the order of the key, so that two settling at once cannot deadlock.
COUNT = """
    INSERT INTO notification_tallies AS tally (
        hour, shard, channel, measure, outcome, error_code, attempts, bucket, count, seconds
    )
    SELECT date_trunc('hour', COALESCE(%(now)s, statement_timestamp()), 'UTC'), %(shard)s, channel, measure, outcome,
           error_code, least(attempts, 32767), width_bucket(seconds::float8, %(bounds)s::float8[]) AS bucket, count(*),
           sum(seconds)
    FROM noted
    GROUP BY channel, measure, outcome, error_code, attempts, bucket
    ORDER BY channel, measure, outcome, error_code, attempts, bucket
    ON CONFLICT (measure, hour, channel, outcome, error_code, attempts, bucket, shard)
        DO UPDATE SET count = tally.count + EXCLUDED.count, seconds = tally.seconds + EXCLUDED.seconds
"""
"""Counts what a CTE `noted` (channel, measure, outcome, error_code, attempts, seconds) holds. Takes `parameters()` and
the parameter `now`."""

_FOLD = """
WITH old AS (
    DELETE FROM notification_tallies
    WHERE measure = ANY(%(measures)s) AND hour > 'epoch'
      AND hour < date_trunc('hour', statement_timestamp(), 'UTC') - make_interval(days => %(days)s)
    RETURNING channel, measure, outcome, error_code, attempts, bucket, count, seconds
)
INSERT INTO notification_tallies AS tally (
    hour, shard, channel, measure, outcome, error_code, attempts, bucket, count, seconds
)
SELECT 'epoch', 0, channel, measure, outcome, error_code, attempts, bucket, sum(count), sum(seconds)
FROM old
GROUP BY channel, measure, outcome, error_code, attempts, bucket
ORDER BY channel, measure, outcome, error_code, attempts, bucket
ON CONFLICT (measure, hour, channel, outcome, error_code, attempts, bucket, shard)
    DO UPDATE SET count = tally.count + EXCLUDED.count, seconds = tally.seconds + EXCLUDED.seconds
"""


def parameters() -> dict[str, Any]:
    """Return the parameters that `COUNT` needs beside `now`."""
    return {"shard": os.getpid() % SHARDS, "bounds": list(BOUNDS)}


def fold() -> None:
    """Add what is older than KEEP_DAYS to one sum for all time. Whoever sums over everything sees no change."""
    with connection.cursor() as cursor:
        cursor.execute(_FOLD, {"measures": Measure.values, "days": KEEP_DAYS})
