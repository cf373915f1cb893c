"""An idle system gets one request: how long from its commit to the first byte at the receiver.

Both are up and idle, the engine's two workers and the naive task's two; samples alternate, each after the one before
has arrived and a pause at random. The naive task is sent on commit of an empty transaction. Measured for each way to
wake a worker that listens.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from benchmarks import wire
from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results, percentile
from benchmarks.receiver import PATH
from benchmarks.requests_made import commit_one, nudging_by
from benchmarks.serving import QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError

WAYS = ("notify", "redis")
KEYS = frozenset(f"first_send_{percent}_{way}" for way in WAYS for percent in ("p99", "p50"))
WARMING = 5


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Take samples of both, in turn, for each way that is wanted."""
    for way in WAYS:
        if wanted & {f"first_send_p99_{way}", f"first_send_p50_{way}"}:
            with nudging_by(way):
                _measure_way(environment, size, way, results)


def _measure_way(environment: BenchmarkEnvironment, size: Size, way: str, results: Results) -> None:
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
    with (
        environment.engine({"NOTIFICATIONS_NUDGE": way}),
        environment.running("naive", naive_celery.COMMAND, {"BENCH_URL": url}),
    ):
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
    for percent in (99, 50):
        engine, naively = (percentile(taken[name], percent) for name in senders)
        results.add(
            f"first_send_p{percent}_{way}",
            engine / naively,
            **{f"engine ms p{percent}": engine, f"naive ms p{percent}": naively},
        )


def _wait(environment: BenchmarkEnvironment, hits: int) -> None:
    """Wait for an arrival, checked so rarely that the checks are no load."""
    deadline = time.monotonic() + 30
    while environment.asyncio.hits() < hits:
        if time.monotonic() > deadline:
            raise BenchmarkError("latency: a delivery did not come")
        time.sleep(0.005)
