"""Rows claimed and settled when sending costs nothing.

The engine in one process, with the memory provider and without locks, against the least PostgreSQL could be asked to
do: per batch of SEND_SLOTS rows one UPDATE ... RETURNING that changes what a claim changes and one that changes what a
settlement changes, each committed. No attempts, no fencing, no order, no log lines there.
"""

from __future__ import annotations

import json

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.measures.throughput import SENT
from benchmarks.serving import QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError

KEYS = frozenset({"sweep_rate"})


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Settle the same rows both ways."""
    rates: dict[str, float] = {}
    for how in ("bare", "engine"):
        environment.clear()
        environment.preload(size.swept, environment.users[QUICK])
        done = json.loads(environment.program("benchmarks.programs.sweep", BENCH_HOW=how))
        if done["rows"] != size.swept or environment.number(SENT) != size.swept:
            raise BenchmarkError(f"sweeping: {how} settled {done['rows']} of {size.swept} rows")
        rates[how] = done["rows"] / done["seconds"]
    results.add("sweep_rate", rates["engine"] / rates["bare"], **{f"{how} rows/s": rates[how] for how in rates})
