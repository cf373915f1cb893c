"""Deliveries a second, and the memory it takes.

Fair to all alike: the work is laid out before anything runs, and the rate is taken at the receiver between the first
5 % of the deliveries and the last, so that start-up time is not counted. Slow contenders get fewer deliveries.
Memory is the highest PSS of all worker processes together, looked at every half second meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.environment import FAST, BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError, memory, rate
from dev.procfile import Handle
from dev.waiting import wait_until

VERSUS = {
    "engine_vs_floor": "floor",
    "engine_vs_naive_celery": "naive",
    "engine_vs_durable_celery": "durable",
    "engine_vs_dramatiq": "dramatiq",
    "engine_vs_post_office": "post_office",
}
KEYS = frozenset({*VERSUS, "rss_vs_naive"})
WATCH_INTERVAL_SECONDS = 0.5
"""Time between two measurements of memory."""
SENT = "SELECT count(*) FROM notification_records WHERE status = 'sent'"
ATTEMPTS = "SELECT count(*) FROM notification_delivery_attempts WHERE outcome = 'success'"


class Watcher:
    """Measures the memory of processes while they work."""

    def __init__(self) -> None:
        self.handles: Sequence[Handle] = ()
        self.peak_mb = 0.0
        self._next = 0.0

    def measure_if_due(self) -> None:
        """Measure if WATCH_INTERVAL_SECONDS have passed."""
        if time.monotonic() >= self._next:
            self.peak_mb = max(self.peak_mb, memory(self.handles))
            self._next = time.monotonic() + WATCH_INTERVAL_SECONDS


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Run each needed contender once."""
    wanted &= KEYS
    rates: dict[str, float] = {}
    memories: dict[str, float] = {}
    needed = {VERSUS[name] for name in wanted if name in VERSUS} | ({"naive"} if "rss_vs_naive" in wanted else set())
    runs = {
        "floor": _floor,
        "engine": _engine,
        "naive": _naive,
        "dramatiq": _dramatiq,
        "post_office": _post_office,
        "durable": _durable,
    }
    counts = {"floor": size.fast, "naive": size.naive, "durable": size.durable, "dramatiq": size.lean}
    counts["post_office"] = size.lean
    for name, run in runs.items():
        if name == "engine" or name in needed:
            environment.clear()
            watcher = Watcher()
            rates[name] = run(environment, size, watcher)
            memories[name] = watcher.peak_mb
    for name, contender in VERSUS.items():
        if name in wanted:
            results.notes[name] = f"{size.fast:,} deliveries, {contender} {counts[contender]:,}"
            results.add(
                name,
                rates["engine"] / rates[contender],
                **{"engine/s": rates["engine"], f"{contender}/s": rates[contender]},
            )
    if "rss_vs_naive" in wanted:
        results.add(
            "rss_vs_naive",
            memories["engine"] / memories["naive"],
            **{"engine MB": memories["engine"], "naive MB": memories["naive"]},
        )
        results.notes["rss_vs_naive"] = "highest PSS of all worker processes together"


def _deliver(
    environment: BenchmarkEnvironment,
    name: str,
    command: str,
    count: int,
    watcher: Watcher,
    written: str = "",
    **env: str,
) -> float:
    """Run a contender over the prepared messages, check that each arrived, and return its rate."""
    before = environment.fast.hits()
    with environment.running(name, command, env) as handles:
        watcher.handles = handles
        deliveries_per_second = rate(environment.fast, before, count, watcher.measure_if_due)
        if written:
            wait_until(lambda: environment.number(written) == count, f"{name} has stored everything")
    check(environment, name, before, count)
    return deliveries_per_second


def check(environment: BenchmarkEnvironment, name: str, before: int, count: int) -> None:
    """Raise BenchmarkError unless exactly `count` deliveries arrived."""
    if (hits := environment.fast.hits() - before) != count:
        raise BenchmarkError(f"{name}: {count} deliveries were to arrive, {hits} did")


def _floor(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    command = "python -m benchmarks.contenders.floor"
    return _deliver(environment, "floor", command, size.fast, watcher, BENCH_COUNT=str(size.fast))


def _engine(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    from notifications.broker.nudge import nudge

    before = environment.fast.hits()
    with environment.engine() as handles:
        watcher.handles = handles
        environment.preload(size.fast, environment.users[FAST])
        nudge()
        deliveries_per_second = rate(environment.fast, before, size.fast, watcher.measure_if_due)
        wait_until(lambda: environment.number(SENT) == size.fast, "the engine has stored everything")
    check(environment, "engine", before, size.fast)
    if (attempts := environment.number(ATTEMPTS)) != size.fast:
        raise BenchmarkError(f"engine: {attempts} attempts written down for {size.fast} deliveries")
    return deliveries_per_second


def _naive(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    from benchmarks.contenders import naive_celery

    naive_celery.fill(size.naive)
    return _deliver(environment, "naive", naive_celery.COMMAND, size.naive, watcher)


def _durable(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    from benchmarks.contenders import durable_celery

    environment.preload(size.durable, environment.users[FAST])
    durable_celery.fill([row[0] for row in environment.query("SELECT id FROM notification_records ORDER BY id")])
    return _deliver(environment, "durable", durable_celery.COMMAND, size.durable, watcher, ATTEMPTS)


def _dramatiq(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    from benchmarks.contenders import dramatiq_app

    dramatiq_app.fill(size.lean)
    return _deliver(environment, "dramatiq", dramatiq_app.COMMAND, size.lean, watcher)


def _post_office(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    from benchmarks import wire
    from benchmarks.contenders import post_office_backend as post_office

    environment.query(post_office.FILL, {"count": size.lean, "body": wire.body(1).decode()})
    environment.query("ANALYZE post_office_email")
    sent = "SELECT count(*) FROM post_office_email WHERE status = 0"
    env = {"DJANGO_SETTINGS_MODULE": post_office.SETTINGS}
    return _deliver(environment, "post_office", post_office.COMMAND, size.lean, watcher, sent, **env)
