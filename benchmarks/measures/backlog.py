"""What a claim costs while an old snapshot is open, and with millions of records due.

The engine delivers with the memory provider, in one process without locks (`benchmarks.programs.claims`). Its own
claims, each with the look at the queue that belongs to it, are explained. The median leaves out the looks from the
beginning of the queue, which take at most a tenth of the time (`notifications/delivery/queue_start.py`).

`held_snapshot_flatness`: many records are delivered, then new messages come one by one, each with a drain of its own,
whose claims (the one that finds it, and the empty one) count together;
once while a transaction holds a snapshot from before all of that, as pg_dump does, and once without. VACUUM runs in
between both times. `backlog_flatness`: two databases, with many and with few records due; one drain delivers a
thousand of them. The figure is the worse one of pages and time.
"""

from __future__ import annotations

import contextlib
import json
from statistics import median

import psycopg2

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.measures.claiming import database_with
from benchmarks.serving import QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError

KEYS = frozenset({"held_snapshot_flatness", "backlog_flatness"})
PROGRAM = "benchmarks.programs.claims"
MESSAGES = 20
"""New messages whose claims are looked at."""
BACKLOG_DELIVERIES = 1_024


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Measure what is wanted."""
    if "held_snapshot_flatness" in wanted:
        _held_snapshot(environment, size.held_deliveries, results)
    if "backlog_flatness" in wanted:
        _backlog(environment, size, results)


def _held_snapshot(environment: BenchmarkEnvironment, count: int, results: Results) -> None:
    pages: dict[str, float] = {}
    milliseconds: dict[str, float] = {}
    for snapshot in ("without", "with"):
        environment.clear()
        environment.preload(count, environment.users[QUICK])
        with contextlib.ExitStack() as stack:
            if snapshot == "with":
                _hold_snapshot(environment, stack)
            seen = _claims(environment, BENCH_DELIVER=str(count), BENCH_MESSAGES=str(MESSAGES))
        pages[snapshot], milliseconds[snapshot] = median(seen["pages"]), median(seen["ms"])
    results.add(
        "held_snapshot_flatness",
        pages["with"] / pages["without"],
        **{f"pages {name}": value for name, value in pages.items()},
        **{f"ms {name}": value for name, value in milliseconds.items()},
    )
    results.notes["held_snapshot_flatness"] = f"after {count:,} deliveries"


def _hold_snapshot(environment: BenchmarkEnvironment, stack: contextlib.ExitStack) -> None:
    holder = stack.enter_context(contextlib.closing(psycopg2.connect(environment.postgres.url)))
    holder.set_session(isolation_level="REPEATABLE READ", readonly=True)
    with holder.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM notification_records WHERE id < 0")  # takes the snapshot


def _backlog(environment: BenchmarkEnvironment, size: Size, results: Results) -> None:
    pages: dict[int, float] = {}
    milliseconds: dict[int, float] = {}
    for due in (size.few_due, size.many_due):
        url = database_with(environment, finished=0, due=due)
        seen = _claims(environment, DATABASE_URL=url, BENCH_LIMIT=str(BACKLOG_DELIVERIES))
        pages[due], milliseconds[due] = median(seen["pages"]), median(seen["ms"])
    few, many = size.few_due, size.many_due
    results.add(
        "backlog_flatness",
        max(pages[many] / pages[few], milliseconds[many] / milliseconds[few]),
        **{"pages many": pages[many], "pages few": pages[few]},
        **{"ms many": milliseconds[many], "ms few": milliseconds[few]},
    )
    results.notes["backlog_flatness"] = f"{many:,} against {few:,} due"


def _claims(environment: BenchmarkEnvironment, **env: str) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = json.loads(environment.program(PROGRAM, **env))
    if not seen["pages"]:
        raise BenchmarkError("backlog: no claim was seen")
    return seen
