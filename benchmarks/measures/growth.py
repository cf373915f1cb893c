"""How it grows: few and many worker processes beside few and many finished rows. `GROWTH=1` alone measures it.

One table grows from size to size; at each size every number of processes delivers the same number of rows, each time
next to two bare loops (the floor), and what was delivered is taken out again. What a delivery costs is counted
meanwhile: processor time of workers and PostgreSQL, WAL, commits, commands of Redis. Pages and sizes are taken with the
rows to deliver in the table and the indexes just made.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.environment import FAST, BenchmarkEnvironment
from benchmarks.figures import short, spread
from benchmarks.measures import claiming
from benchmarks.measures.throughput import ATTEMPTS, check
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError, processor_time, rate
from dev.procfile import Handle
from dev.waiting import wait_until

WAITING = "SELECT count(*) FROM notification_records WHERE next_attempt_at IS NOT NULL"
_COUNTERS = {
    "WAL bytes": "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')",
    "commits": "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
}


@dataclass(slots=True, kw_only=True)
class Point:
    """One number of processes beside one number of finished rows."""

    rows: int
    workers: int
    pages: int
    """Touched by a claim of 200."""
    table_mb: float
    indexes_mb: float
    due_kb: float
    vs_floor: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    costs: dict[str, list[float]] = field(default_factory=dict)
    """Of one delivery."""


def measure(environment: BenchmarkEnvironment, size: Size, rounds: int) -> list[Point]:
    """Grow the table, and let every number of processes deliver `rounds` times at each size."""
    points: list[Point] = []
    environment.clear()
    filled = 0
    for rows in size.growth_rows:
        began = time.monotonic()
        with environment.database.cursor() as cursor:
            claiming.fill(cursor, filled + 1, rows)
        filled = rows
        here = _points(environment, size, rows)
        print(f"{rows:,} rows: made in {time.monotonic() - began:.1f} s", flush=True)
        for number in range(1, rounds + 1):
            began = time.monotonic()
            for point in here:
                _round(environment, size.growth_deliveries, point)
            print(f"{rows:,} rows, round {number} of {rounds}: {time.monotonic() - began:.1f} s", flush=True)
        points += here
    return points


def _points(environment: BenchmarkEnvironment, size: Size, rows: int) -> list[Point]:
    """Return the points of one size, with what is known before anything is delivered."""
    with _to_deliver(environment, size.growth_deliveries):
        with environment.database.cursor() as cursor:
            cursor.execute("BEGIN")
            pages = claiming.pages(cursor)
            cursor.execute("ROLLBACK")
        table, indexes, due = (
            float(environment.number(f"SELECT {size_of}"))
            for size_of in (
                "pg_table_size('notification_records')",
                "pg_indexes_size('notification_records')",
                "pg_relation_size('notification_due')",
            )
        )
    table, indexes, due = table / 2**20, indexes / 2**20, due / 1024
    return [
        Point(rows=rows, workers=workers, pages=pages, table_mb=table, indexes_mb=indexes, due_kb=due)
        for workers in size.growth_workers
    ]


@contextlib.contextmanager
def _to_deliver(environment: BenchmarkEnvironment, count: int) -> Iterator[None]:
    """Lay out rows to deliver while the block lasts, and leave the table as it was before, vacuumed."""
    last = environment.number("SELECT coalesce(max(id), 0) FROM notification_records")
    environment.preload(count, environment.users[FAST])
    yield
    environment.query("TRUNCATE notification_delivery_attempts")
    environment.query("DELETE FROM notification_records WHERE id > %s", (last,))
    environment.query("VACUUM notification_records")
    environment.redis.flushall()


def _round(environment: BenchmarkEnvironment, count: int, point: Point) -> None:
    """Deliver once with the floor's loops and once with the workers."""
    from notifications.broker.nudge import nudge

    before = environment.fast.hits()
    with environment.running("floor", "python -m benchmarks.contenders.floor", {"BENCH_COUNT": str(count)}):
        floor = rate(environment.fast, before, count)
    check(environment, "floor", before, count)
    before = environment.fast.hits()
    with environment.engine(processes=point.workers) as workers, _to_deliver(environment, count):
        at_first = _counters(environment, workers)
        nudge()
        engine = rate(environment.fast, before, count)
        wait_until(lambda: not environment.number(WAITING), "the engine has written everything down")
        at_last = _counters(environment, workers)
        check(environment, "engine", before, count)
        if (attempts := environment.number(ATTEMPTS)) != count:
            raise BenchmarkError(f"growth: {attempts} attempts written down for {count} deliveries")
    point.per_second.append(engine)
    point.vs_floor.append(engine / floor)
    for name, counted in at_last.items():
        point.costs.setdefault(name, []).append((counted - at_first[name]) / count)


def _counters(environment: BenchmarkEnvironment, workers: Sequence[Handle]) -> dict[str, float]:
    """Return what only ever grows; processor time is in microseconds."""
    counted: dict[str, float] = {name: environment.number(sql) for name, sql in _COUNTERS.items()}
    commands: dict[str, dict[str, float]] = environment.redis.info("commandstats")
    counted["Redis commands"] = sum(command["calls"] for command in commands.values())
    counted["worker us"] = 1e6 * sum(processor_time(worker.pid) for worker in workers)
    counted["PostgreSQL us"] = 1e6 * processor_time(environment.postgres.pid)
    return counted


def table(points: Sequence[Point]) -> str:
    """Return the table that people read: medians, the ratio with lowest and highest."""
    costs = list(points[0].costs)
    heads = ["finished rows", "processes", "/ floor", "a second", "pages of a claim"]
    heads += ["table MB", "all indexes MB", "due index KB", *(f"{name} each" for name in costs)]
    rows = [heads]
    for point in points:
        low, middle, high = min(point.vs_floor), median(point.vs_floor), max(point.vs_floor)
        cells = [f"{point.rows:,}", str(point.workers), f"{middle:.2f} ({low:.2f}, {high:.2f})"]
        numbers = [median(point.per_second), point.pages, point.table_mb, point.indexes_mb, point.due_kb]
        rows.append(cells + [short(number) for number in [*numbers, *(median(point.costs[name]) for name in costs)]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows)


def as_json(points: Sequence[Point], about: Mapping[str, Any]) -> str:
    """Return the file: one object for each point, what varies with median, min and max."""
    growth = []
    for point in points:
        varying = {"vs_floor": spread(point.vs_floor), "per_second": spread(point.per_second)}
        costs = {name: spread(values) for name, values in point.costs.items()}
        growth.append(asdict(point) | varying | {"costs": costs})
    return json.dumps({"growth": growth, "details": {"about": dict(about)}}, indent=2) + "\n"
