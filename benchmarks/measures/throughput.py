"""Deliveries a second, and the memory it takes.

Fair to all alike: the work is laid out before anything runs, and the rate is taken at the receiver between the first
5 % of the deliveries and the last, so that start-up time is not counted. Slow contenders get fewer deliveries. A job
queue with an environment of its own (`benchmarks.peers`) has a new database in each round, and two processes as ours;
it is installed and its queue is filled before anything is measured.
Memory is the highest PSS of all worker processes together, looked at every half second meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import psutil
import psycopg2

from benchmarks import wire
from benchmarks.environment import FAST, BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.peers import PEERS, Peer, PeerAbsentError
from benchmarks.size import Size
from benchmarks.watching import PATIENCE, BenchmarkError, memory, processor_time, rate
from dev.procfile import Handle
from dev.waiting import wait_until

VERSUS = {
    "engine_vs_floor": "floor",
    "engine_vs_urllib3": "urllib3",
    "engine_vs_naive_celery": "naive",
    "engine_vs_durable_celery": "durable",
    "engine_vs_dramatiq": "dramatiq",
    "engine_vs_post_office": "post_office",
    **{f"engine_vs_{name}": name for name in PEERS},
}
RSS_KEYS = {"rss_vs_naive": "engine", "rss_4_workers": "engine of 4"}
"""Contenders whose memory is compared with the naive task's."""
KEYS = frozenset({*VERSUS, *RSS_KEYS, "engine_cpu_vs_floor"})
COUNTED_PART = 0.95
"""Part of the deliveries whose processor time is counted: all but the first 5 %."""
WATCH_INTERVAL_SECONDS = 0.5
"""Time between two measurements of memory."""
SENT = "SELECT count(*) FROM notification_records WHERE status = 'sent'"
ATTEMPTS = "SELECT count(*) FROM notification_delivery_attempts WHERE outcome = 'success'"


class Watcher:
    """Measures memory and processor time of processes while they work.

    Args:
        servers: Process ids of PostgreSQL and Redis, whose processor time counts too.
    """

    def __init__(self, servers: Sequence[int]) -> None:
        self.handles: Sequence[Handle] = ()
        self.peak_mb = 0.0
        self.processor_seconds = 0.0
        """Since `start_clock`, as of the last look: a process that has ended cannot be asked."""
        self._servers = servers
        self._clock_at_start: float | None = None
        self._next = 0.0

    def start_clock(self) -> None:
        """Count processor time from here on."""
        self._clock_at_start = self._clock()

    def read_clock(self) -> None:
        """Read the processor time so far."""
        if self._clock_at_start is not None:
            with contextlib.suppress(psutil.Error):
                # The time of a process that has ended is missing in the sum.
                self.processor_seconds = max(self.processor_seconds, self._clock() - self._clock_at_start)

    def _clock(self) -> float:
        return sum(processor_time(pid) for pid in [*(handle.pid for handle in self.handles), *self._servers])

    def measure_if_due(self) -> None:
        """Read the clock, and measure the memory if WATCH_INTERVAL_SECONDS have passed."""
        self.read_clock()
        if time.monotonic() >= self._next:
            self.peak_mb = max(self.peak_mb, memory(self.handles))
            self._next = time.monotonic() + WATCH_INTERVAL_SECONDS


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Run each needed contender once."""
    wanted &= KEYS
    wanted -= _absent(wanted, results)
    if not wanted:
        return
    rates: dict[str, float] = {}
    memories: dict[str, float] = {}
    microseconds: dict[str, float] = {}
    """Processor time of a delivery."""
    needed = {VERSUS[name] for name in wanted if name in VERSUS} | ({"naive"} if wanted & RSS_KEYS.keys() else set())
    needed |= {"engine of 4"} if "rss_4_workers" in wanted else set()
    needed |= {"floor"} if "engine_cpu_vs_floor" in wanted else set()
    runs: dict[str, Callable[[BenchmarkEnvironment, Size, Watcher], float]] = {
        "floor": _floor,
        "urllib3": _urllib3,
        "engine": _engine,
        "engine of 4": partial(_engine, processes=4),
        "naive": _naive,
        "dramatiq": _dramatiq,
        "post_office": _post_office,
        "durable": _durable,
        **{name: partial(_peer, name, peer) for name, peer in PEERS.items()},
    }
    counts = {
        "floor": size.fast,
        "urllib3": size.fast,
        "naive": size.naive,
        "durable": size.durable,
        "dramatiq": size.lean,
    }
    counts |= {"post_office": size.lean, **dict.fromkeys(PEERS, size.fast)}
    for name, run in runs.items():
        if name == "engine" or name in needed:
            environment.clear()
            watcher = Watcher([environment.postgres.pid, environment.valkey.pid])
            rates[name] = run(environment, size, watcher)
            memories[name] = watcher.peak_mb
            microseconds[name] = watcher.processor_seconds / (counts.get(name, size.fast) * COUNTED_PART) * 1e6
    for name, contender in VERSUS.items():
        if name in wanted:
            results.notes[name] = f"{size.fast:,} deliveries, {contender} {counts[contender]:,}"
            results.add(
                name,
                rates["engine"] / rates[contender],
                **{"engine/s": rates["engine"], f"{contender}/s": rates[contender]},
                **{"engine us": microseconds["engine"], f"{contender} us": microseconds[contender]},
            )
    if "engine_cpu_vs_floor" in wanted:
        results.add(
            "engine_cpu_vs_floor",
            microseconds["engine"] / microseconds["floor"],
            **{"engine us": microseconds["engine"], "floor us": microseconds["floor"]},
        )
        results.notes["engine_cpu_vs_floor"] = "PostgreSQL and Redis included, receiver not"
    for name in wanted & RSS_KEYS.keys():
        engine = memories[RSS_KEYS[name]]
        results.add(name, engine / memories["naive"], **{"engine MB": engine, "naive MB": memories["naive"]})
        results.notes[name] = "highest PSS of all processes together, parents included"


def _absent(wanted: frozenset[str], results: Results) -> frozenset[str]:
    """Install the job queues that are needed. Return the keys of those that cannot be, and say why in the results."""
    for name, peer in PEERS.items():
        key = f"engine_vs_{name}"
        if key in wanted and key not in results.absent:
            try:
                peer.command()
            except PeerAbsentError as error:
                results.absent[key] = str(error)
    return frozenset(results.absent)


def _deliver(
    environment: BenchmarkEnvironment,
    name: str,
    command: str,
    count: int,
    watcher: Watcher,
    env: Mapping[str, str] | None = None,
    *,
    stored: Callable[[], bool] = lambda: True,
    copies: int = 1,
) -> float:
    """Run a contender over the prepared messages, check that each arrived, and return its rate."""
    before = environment.fast.hits()
    with environment.running(name, command, env, copies) as handles:
        watcher.handles = handles
        deliveries_per_second = rate(environment.fast, before, count, watcher.measure_if_due, watcher.start_clock)
        wait_until(stored, f"{name} has stored everything")
        watcher.read_clock()
    check(environment, name, before, count)
    return deliveries_per_second


def check(environment: BenchmarkEnvironment, name: str, before: int, count: int) -> None:
    """Raise BenchmarkError unless exactly `count` deliveries arrived."""
    if (hits := environment.fast.hits() - before) != count:
        raise BenchmarkError(f"{name}: {count} deliveries were to arrive, {hits} did")


def _floor(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    command = "python -m benchmarks.contenders.floor"
    return _deliver(environment, "floor", command, size.fast, watcher, {"BENCH_COUNT": str(size.fast)})


def _urllib3(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    command = "python -m benchmarks.contenders.floor"
    env = {"BENCH_COUNT": str(size.fast), "BENCH_CLIENT": "urllib3"}
    return _deliver(environment, "urllib3", command, size.fast, watcher, env)


def _engine(environment: BenchmarkEnvironment, size: Size, watcher: Watcher, processes: int = 2) -> float:
    from notifications.broker.nudge import nudge

    before = environment.fast.hits()
    with environment.engine(processes=processes) as handles:
        watcher.handles = handles
        environment.preload(size.fast, environment.users[FAST])
        nudge()
        deliveries_per_second = rate(environment.fast, before, size.fast, watcher.measure_if_due, watcher.start_clock)
        wait_until(lambda: environment.number(SENT) == size.fast, "the engine has stored everything")
        watcher.read_clock()
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

    def stored() -> bool:
        return environment.number(ATTEMPTS) == size.durable

    return _deliver(environment, "durable", durable_celery.COMMAND, size.durable, watcher, stored=stored)


def _dramatiq(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    from benchmarks.contenders import dramatiq_app

    dramatiq_app.fill(size.lean)
    return _deliver(environment, "dramatiq", dramatiq_app.COMMAND, size.lean, watcher)


def _post_office(environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    from benchmarks.contenders import post_office_backend as post_office

    environment.query(post_office.FILL, {"count": size.lean, "body": wire.body(1).decode()})
    environment.query("ANALYZE post_office_email")
    sent = "SELECT count(*) FROM post_office_email WHERE status = 0"
    env = {"DJANGO_SETTINGS_MODULE": post_office.SETTINGS}

    def stored() -> bool:
        return environment.number(sent) == size.lean

    return _deliver(environment, "post_office", post_office.COMMAND, size.lean, watcher, env, stored=stored)


def _peer(name: str, peer: Peer, environment: BenchmarkEnvironment, size: Size, watcher: Watcher) -> float:
    """Run two processes of a job queue over a new database."""
    request = {"url": environment.url, "headers": wire.HEADERS | wire.POST_HEADERS}
    request |= {"body": wire.body(1).decode(), "answer": wire.ANSWER.decode()}
    environment.query("DROP DATABASE IF EXISTS peer WITH (FORCE)")
    environment.query("CREATE DATABASE peer")
    url = f"{environment.postgres.url.rpartition('/')[0]}/peer"
    env = {"DATABASE_URL": url, "BENCH_REQUEST": json.dumps(request)}
    command = peer.command()
    with environment.running(f"{name}_fill", f"{command} {size.fast}", env) as [filling]:
        if filling.wait(PATIENCE):
            raise BenchmarkError(f"{name}: its queue was not filled")
    with contextlib.closing(psycopg2.connect(url)) as database, database.cursor() as cursor:
        database.autocommit = True

        def left() -> int:
            cursor.execute(peer.left)
            [(count,)] = cursor.fetchall()
            return int(count)

        cursor.execute(f"ANALYZE {peer.tables}")
        if left() != size.fast:
            raise BenchmarkError(f"{name}: {left()} jobs instead of {size.fast}")
        return _deliver(environment, name, command, size.fast, watcher, env, stored=lambda: not left(), copies=2)
