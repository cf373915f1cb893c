"""A receiver that takes 200 ms, or 2 s: how much of the slots' time is used.

Ideal is slots / 0.2 s, or slots / 2 s. The workers run one drain each (WORKER_SLOTS=1): with more, every drain of a
process would bring SEND_SLOTS of its own, and no ideal could be named. The rate is taken by times of arrival between
two whole waves: the first one past 5 % of the deliveries, and the last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.measures.throughput import SENT
from benchmarks.serving import CRAWLING, CRAWLING_SECONDS, SLOW, SLOW_SECONDS
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError, rate
from dev.waiting import wait_until


class Case(NamedTuple):
    """What one key measures."""

    slots: int
    """Of each of the two workers."""
    endpoint: str = SLOW
    takes: float = SLOW_SECONDS


CASES = {
    "slow_vs_ideal": Case(32),
    "slow_wide_vs_ideal": Case(128),
    "slow_1024_vs_ideal": Case(512, CRAWLING, CRAWLING_SECONDS),
}
KEYS = frozenset(CASES)


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Keep the slots busy for a while."""
    for name, case in CASES.items():
        if name in wanted:
            seconds = size.slow_seconds if case.endpoint == SLOW else size.crawling_seconds
            rate_reached, ideal = _run(environment, case, seconds), 2 * case.slots / case.takes
            results.add(name, rate_reached / ideal, **{"engine/s": rate_reached, "ideal/s": ideal})


def _run(environment: BenchmarkEnvironment, case: Case, seconds: float) -> float:
    from notifications.broker.nudge import nudge

    wave = 2 * case.slots
    count = wave * round(seconds / case.takes)
    environment.clear()
    environment.asyncio.arrivals()
    before = environment.asyncio.hits()
    with environment.engine({"NOTIFICATIONS_SEND_SLOTS": str(case.slots), "WORKER_SLOTS": "1"}):
        environment.preload(count, environment.users[case.endpoint])
        nudge()
        rate(environment.asyncio, before, count)
        wait_until(lambda: environment.number(SENT) == count, "the engine has written everything down")
    if (hits := environment.asyncio.hits() - before) != count:
        raise BenchmarkError(f"slow: {count} deliveries were to arrive, {hits} did")
    arrivals = environment.asyncio.arrivals()
    first = wave * math.ceil(count * 0.05 / wave)
    return (count - first) / ((arrivals[-1][0] - arrivals[first - 1][0]) / 1e9)
