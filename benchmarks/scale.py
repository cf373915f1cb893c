"""What docs/scale.md computes with: `.venv/bin/python -m benchmarks.scale`, some two minutes.

Bytes of WAL of a request, bytes a delivered notification leaves in the tables, Redis commands of a delivery, and what
monthly partitions would do to a claim. PostgreSQL writes full pages here and waits for the disk, as in production.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from benchmarks.environment import FAST, BenchmarkEnvironment
from benchmarks.measures import claiming
from benchmarks.watching import BenchmarkError
from dev.keeper import private_directory
from dev.waiting import wait_until

FINISHED = int(os.environ.get("SCALE_ROWS") or 2_000_000)
"""Rows in the table when the WAL of a request is measured."""
DELIVERED = 20_000
REQUESTED = 5_000
PER_TRANSACTION = 100
"""Requests in a transaction."""
MONTHS, A_MONTH, WAITING = 12, 100_000, 5_000
LSN = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"

_TABLE = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}.notification_records
    (LIKE public.notification_records INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING IDENTITY) {partition};
SET search_path = {schema}, public;
ALTER TABLE notification_records ADD PRIMARY KEY (id, created_at);
CREATE UNIQUE INDEX ON notification_records (dedupe_key, channel, created_at);
CREATE INDEX ON notification_records (next_attempt_at, id) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX ON notification_records (user_id, id);
CREATE INDEX ON notification_records (created_at);
CREATE INDEX ON notification_records (preview_id) WHERE preview_id <> '';
"""
_MONTH = """
SELECT format('CREATE TABLE month_%%s PARTITION OF notification_records FOR VALUES FROM (%%L) TO (%%L)', number,
              begins, begins + interval '1 month')
FROM (SELECT n AS number, date_trunc('month', now()) - (%(months)s - n) * interval '1 month' AS begins
      FROM generate_series(1, %(months)s) AS n) AS month
"""
_FILL = f"""{claiming.INTO}
SELECT 'feishu', 1 + n %% 1000, '', 'preview', '', '', 0, md5(%(status)s || n), '/assistant/1', 'text', '', false, '',
       %(status)s, 1, 5, 0, CASE WHEN %(status)s <> 'sent' THEN at END, '', '', '', at, at
FROM (SELECT n, greatest(now() - n * (now() - %(since)s) / %(count)s, %(since)s) AS at
      FROM generate_series(%(first)s, %(last)s) AS n) AS row
"""  # noqa: S608  our own words
_OLDEST = f"(date_trunc('month', now()) - interval '{MONTHS - 1} months')"


def wal(environment: BenchmarkEnvironment) -> Iterator[str]:
    """Yield what a request writes to the WAL, one kind of key after the other."""
    from django.db import connection, transaction

    from benchmarks.requests_made import payload
    from notifications.service import NotificationService

    def digest(number: int) -> str:
        return hashlib.md5(f"{keys}:{number}".encode(), usedforsecurity=False).hexdigest()

    cases: dict[str, tuple[Callable[[int], str], str, str]] = {
        "random keys, right after a checkpoint": (digest, "CHECKPOINT", "off"),
        "random keys, right after a checkpoint, wal_compression": (digest, "CHECKPOINT", "pglz"),
        "keys that begin with the time, right after a checkpoint": (lambda n: f"{keys}:{n:09}", "CHECKPOINT", "off"),
        "keys that begin with the time, pages written already": (lambda n: f"{keys}:{n:09}", "SELECT 1", "off"),
    }
    with environment.database.cursor() as cursor:
        claiming.fill(cursor, 1, FINISHED)
    for case, (key, first, compression) in cases.items():
        keys = f"{time.time():.0f}"
        environment.query(first)
        with connection.cursor() as session:
            session.execute(f"SET wal_compression = '{compression}'")
        before = environment.number(LSN)
        for start in range(0, REQUESTED, PER_TRANSACTION):
            with transaction.atomic():
                NotificationService().accept(
                    [payload(key(n), 1 + n % 1000) for n in range(start, start + PER_TRANSACTION)]
                )
        size = (environment.number(LSN) - before) / REQUESTED
        yield f"WAL of a request, {FINISHED:,} rows, {case}: {size:,.0f} bytes"


def traces(environment: BenchmarkEnvironment) -> Iterator[str]:
    """Yield what deliveries leave behind in tables and Redis."""
    from benchmarks.requests_made import payload
    from notifications.api import request_notifications

    environment.clear()
    with environment.engine():
        before = {name: info["calls"] for name, info in environment.redis.info("commandstats").items()}
        at_first, users = environment.number(LSN), environment.users[FAST]
        keys = (hashlib.md5(f"{n}".encode(), usedforsecurity=False).hexdigest() for n in range(DELIVERED))
        request_notifications(payload(key, users[0]) for key in keys)
        wait_until(
            lambda: (
                not environment.number("SELECT count(*) FROM notification_records WHERE next_attempt_at IS NOT NULL")
            ),
            "everything is delivered",
        )
        each = (environment.number(LSN) - at_first) / DELIVERED
        commands = environment.redis.info("commandstats").items()
    yield f"WAL of a request and its delivery, small tables: {each:,.0f} bytes"
    called = {name.removeprefix("cmdstat_"): info["calls"] - before.get(name, 0) for name, info in commands}
    most_frequent = sorted(called.items(), key=lambda item: -item[1])[:6]
    yield "Redis, calls of a delivery: " + ", ".join(f"{name} {calls / DELIVERED:.2f}" for name, calls in most_frequent)
    for how in ("as delivered", "packed"):
        for table in ("notification_records", "notification_delivery_attempts"):
            sizes = {
                name: environment.number(f"SELECT pg_{name}_size('{table}')") / DELIVERED
                for name in ("table", "indexes")
            }
            yield f"{table}, bytes of a delivered one, {how}: " + ", ".join(f"{k} {v:,.0f}" for k, v in sizes.items())
        environment.query("VACUUM FULL ANALYZE notification_records")
        environment.query("VACUUM FULL ANALYZE notification_delivery_attempts")
    environment.redis.set("smartmate:lock:feishu|" + "k" * 32, "t" * 32, px=60_000)
    usage = environment.redis.memory_usage("smartmate:lock:feishu|" + "k" * 32)
    used = environment.redis.info("memory")["used_memory"] / 2**20
    yield f"Redis: a lock takes {usage} bytes; used_memory {used:.1f} MB"


def partitions(environment: BenchmarkEnvironment) -> Iterator[str]:
    """Yield what a claim of 200 costs in one table and in monthly partitions."""
    claim, parameters = claiming.statement()
    dated = claim.replace("next_attempt_at,\n", "next_attempt_at, created_at,\n", 1)
    dated = dated.replace("record.id = due.id", "record.id = due.id AND record.created_at = due.created_at")
    for schema in ("plain", "partitioned"):
        monthly = "PARTITION BY RANGE (created_at)" if schema == "partitioned" else ""
        environment.query(_TABLE.format(schema=schema, partition=monthly))
        for (create,) in environment.query(_MONTH, {"months": MONTHS}) if monthly else ():
            environment.query(create)
        _fill(environment, "sent", MONTHS * A_MONTH, _OLDEST)
        _fill(environment, "pending", WAITING, "(now() - interval '1 hour')")
        yield _explained(environment, f"{schema}, waiting in the newest month, the claim as it is", claim, parameters)
        yield _explained(
            environment, f"{schema}, waiting in the newest month, joined by created_at too", dated, parameters
        )
        _fill(environment, "failed", WAITING, _OLDEST)
        yield _explained(environment, f"{schema}, waiting in all months, joined by created_at too", dated, parameters)
    began = time.monotonic()
    environment.query("DROP TABLE month_1")
    yield f"DROP of a month of {A_MONTH:,} rows: {(time.monotonic() - began) * 1000:.0f} ms"
    environment.query("DROP SCHEMA plain, partitioned CASCADE; SET search_path = public")


def _fill(environment: BenchmarkEnvironment, status: str, count: int, since: str) -> None:
    for first in range(1, count + 1, A_MONTH):  # every wait has a bound
        chunk = {"status": status, "count": count, "first": first, "last": min(count, first + A_MONTH - 1)}
        environment.query(_FILL.replace("%(since)s", since), chunk)
    environment.query("VACUUM ANALYZE notification_records")


def _explained(environment: BenchmarkEnvironment, case: str, sql: str, parameters: Any) -> str:
    from notifications.sql import FORBID_SORT

    figures: list[tuple[float, float, int]] = []
    for _ in range(6):
        environment.query("BEGIN")
        explain = f"{FORBID_SORT} EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql.removeprefix(FORBID_SORT)}"
        [([plan],)] = environment.query(explain, parameters)
        environment.query("ROLLBACK")
        if plan["Plan"]["Actual Rows"] != claiming.LIMIT:
            raise BenchmarkError(f"{case}: {plan['Plan']['Actual Rows']} rows instead of {claiming.LIMIT}")
        pages = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
        figures.append((plan["Planning Time"], plan["Execution Time"], pages))
    planning, execution, pages = (median(values) for values in zip(*figures, strict=True))
    return (
        f"{case}: planning {planning:.1f} ms (first time {figures[0][0]:.1f}), execution {execution:.1f} ms, "
        f"{pages:,.0f} pages"
    )


def main() -> int:
    """Print a line for each figure."""
    with private_directory() as folder, BenchmarkEnvironment(folder, durable=True) as environment:
        for part in (traces, partitions, wal):
            for line in part(environment):
                print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
