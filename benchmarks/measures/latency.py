"""An idle system gets one request: how long from its commit to the first byte at the receiver.

Both are up and idle, the engine's two workers and the naive task's two; samples alternate, each after the one before
has arrived and a pause at random. The naive task is sent on commit of an empty transaction.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from benchmarks import wire
from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results, percentile
from benchmarks.receiver import PATH
from benchmarks.requests_made import commit_one
from benchmarks.serving import QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError

KEYS = frozenset({"first_send_p99_vs_naive"})
WARMING = 5


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Take samples of both, in turn."""
    from django.db import transaction

    from benchmarks.contenders import naive_celery

    def naive(key: str) -> int:
        committed: list[int] = []
        with transaction.atomic():
            transaction.on_commit(lambda: committed.append(time.monotonic_ns()))
            transaction.on_commit(lambda: naive_celery.send.delay(wire.body(1, key).decode()))
        return committed[0]

    senders: dict[str, Callable[[str], int]] = {
        "engine": lambda key: commit_one(key, environment.users[QUICK][0]),
        "naive": naive,
    }
    taken: dict[str, list[float]] = {name: [] for name in senders}
    choice = random.Random(2)  # noqa: S311
    environment.clear()
    environment.asyncio.arrivals()
    url = f"{environment.asyncio.url}{PATH}{QUICK}"
    with environment.engine(), environment.running("naive", naive_celery.COMMAND, {"BENCH_URL": url}):
        before = environment.asyncio.hits()
        for number in range(size.first_sends + WARMING):
            for name, send in senders.items():
                committed = send(f"{name}:{number}")
                before += 1
                _wait(environment, before)
                if number >= WARMING:
                    taken[name].append((environment.asyncio.arrivals()[-1][0] - committed) / 1e6)
                time.sleep(choice.uniform(0.01, 0.03))
        if environment.asyncio.hits() != before:
            raise BenchmarkError("latency: a delivery too many")
    at = {name: {percent: percentile(values, percent) for percent in (50, 99)} for name, values in taken.items()}
    results.add(
        "first_send_p99_vs_naive",
        at["engine"][99] / at["naive"][99],
        **{
            "engine ms p99": at["engine"][99],
            "naive ms p99": at["naive"][99],
            "engine ms p50": at["engine"][50],
            "naive ms p50": at["naive"][50],
            "p50 ratio": at["engine"][50] / at["naive"][50],
        },
    )


def _wait(environment: BenchmarkEnvironment, hits: int) -> None:
    """Wait for an arrival, checked so rarely that the checks are no load."""
    deadline = time.monotonic() + 30
    while environment.asyncio.hits() < hits:
        if time.monotonic() > deadline:
            raise BenchmarkError("latency: a delivery did not come")
        time.sleep(0.005)
