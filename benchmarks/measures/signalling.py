"""What the signals cost a delivery.

Where nobody listens, a settlement adds one step: it asks whether somebody listens. It does so once for a group of
results; the figure is that of a group of one, the most that a delivery can pay. It is measured directly, because the
rates of two sweeps differ by more from run to run. That nothing is written is checked: the sweep without a receiver
stores no event, and the one with a receiver stores one for each delivery.

Beside it, not a target: the rows a second of a sweep with the memory provider, without a receiver and with one.
"""

from __future__ import annotations

import json

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.serving import QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError

KEYS = frozenset({"signals_cost"})
EVENTS = "SELECT count(*) FROM notification_events"


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Sweep without a receiver and with one, and time the step."""
    rates: dict[str, float] = {}
    microseconds = 0.0
    for how, listen in (("silent", ""), ("heard", "1")):
        environment.clear()
        environment.preload(size.swept, environment.users[QUICK])
        printed = environment.program("benchmarks.programs.sweep", BENCH_HOW="engine", BENCH_LISTEN=listen)
        done = json.loads(printed)
        if (stored := environment.number(EVENTS)) != (size.swept if listen else 0):
            raise BenchmarkError(f"signalling: {stored} events are stored ({how})")
        rates[how] = done["rows"] / done["seconds"]
        if not listen:
            microseconds = done["microseconds"]
    environment.clear()
    results.add("signals_cost", microseconds, **{f"rows/s {how}": rate for how, rate in rates.items()})
