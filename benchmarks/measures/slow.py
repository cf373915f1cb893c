"""A receiver that takes 200 ms: how much of the slots' time is used.

Ideal is slots / 0.2 s. The workers run one drain each (WORKER_SLOTS=1): with more, every drain of a process would bring
SEND_SLOTS of its own, and no ideal could be named. The rate is taken by times of arrival between two whole waves: the
first one past 5 % of the deliveries, and the last.
"""

from __future__ import annotations

import math

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.measures.throughput import SENT
from benchmarks.serving import SLOW, SLOW_SECONDS
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError, rate
from dev.waiting import wait_until

SLOTS = {"slow_vs_ideal": 32, "slow_wide_vs_ideal": 128}
KEYS = frozenset(SLOTS)


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Keep the slots busy for a while."""
    for name in SLOTS:
        if name in wanted:
            rate_reached, ideal = _run(environment, SLOTS[name], size.slow_seconds), 2 * SLOTS[name] / SLOW_SECONDS
            results.add(name, rate_reached / ideal, **{"engine/s": rate_reached, "ideal/s": ideal})


def _run(environment: BenchmarkEnvironment, slots: int, seconds: float) -> float:
    from notifications.broker.nudge import nudge

    wave = 2 * slots
    count = wave * round(seconds / SLOW_SECONDS)
    environment.clear()
    environment.asyncio.arrivals()
    before = environment.asyncio.hits()
    with environment.engine({"NOTIFICATIONS_SEND_SLOTS": str(slots), "WORKER_SLOTS": "1"}):
        environment.preload(count, environment.users[SLOW])
        nudge()
        rate(environment.asyncio, before, count)
        wait_until(lambda: environment.number(SENT) == count, "the engine has written everything down")
    if (hits := environment.asyncio.hits() - before) != count:
        raise BenchmarkError(f"slow: {count} deliveries were to arrive, {hits} did")
    arrivals = environment.asyncio.arrivals()
    first = wave * math.ceil(count * 0.05 / wave)
    return (count - first) / ((arrivals[-1][0] - arrivals[first - 1][0]) / 1e9)
