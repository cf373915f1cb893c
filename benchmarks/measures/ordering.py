"""What an order key costs: rows claimed and settled when sending costs nothing, with and without one.

The engine as in `sweeping`. Each record has an order key of its own, and many other keys have a record that waits for
its retry. The other half of a round has the same records without keys.
"""

from __future__ import annotations

import json

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.measures.throughput import SENT
from benchmarks.serving import QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError

KEYS = frozenset({"ordered_vs_plain"})
CHUNK = 100_000
"""Rows in one INSERT, as every wait for PostgreSQL has a bound."""
_PREFIX = {"plain": "", "ordered": "order-"}
_SET_KEYS = "UPDATE notification_records SET order_key = CASE WHEN %(prefix)s <> '' THEN %(prefix)s || id ELSE '' END"
_WAIT = """
UPDATE notification_records
SET status = 'failed', attempt_count = 1, next_attempt_at = now() + interval '1 hour', dedupe_key = 'other:' || id
WHERE next_attempt_at <= now()
"""


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Settle the same rows both ways."""
    rates: dict[str, float] = {}
    for how, prefix in _PREFIX.items():
        environment.clear()
        for start in range(0, size.other_keys, CHUNK):
            environment.preload(min(CHUNK, size.other_keys - start), environment.users[QUICK])
            environment.query(_WAIT)
        environment.preload(size.swept, environment.users[QUICK])
        environment.query(_SET_KEYS, {"prefix": prefix})
        environment.query("VACUUM ANALYZE notification_records")
        done = json.loads(environment.program("benchmarks.programs.sweep", BENCH_HOW="engine"))
        if done["rows"] != size.swept or environment.number(SENT) != size.swept:
            raise BenchmarkError(f"ordering: {how} settled {done['rows']} of {size.swept} rows")
        rates[how] = done["rows"] / done["seconds"]
    results.add("ordered_vs_plain", rates["ordered"] / rates["plain"], **{f"{how} rows/s": rates[how] for how in rates})
    results.notes["ordered_vs_plain"] = f"{size.other_keys:,} other keys"
