"""Pages a claim touches with many finished rows beside the due ones, against few.

Two databases, one with each; in each round the engine's own claim of 200 rows is explained in both and rolled back.
QUICK has 500 thousand finished rows against 20 thousand instead of 10 million against 100 thousand.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NoReturn

import psycopg2

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results
from benchmarks.size import Size
from benchmarks.watching import PATIENCE, BenchmarkError

KEYS = frozenset({"claim_flatness"})
LIMIT = 200
DUE = 2_000
CHUNK = 1_000_000
"""Rows in one INSERT, as every wait for PostgreSQL has a bound."""

INTO = """
INSERT INTO notification_records (
    channel, user_id, trigger_id, preview_id, trigger_type, target_type, target_id, dedupe_key, target_url,
    summary_text, fallback_text, fallback_used, trace_id, status, attempt_count, max_attempts, round, next_attempt_at,
    last_error_code, last_error, provider_message_id, created_at, updated_at
)
"""
_FILL = f"""{INTO}
SELECT 'feishu', 1 + n %% 1000, '', 'preview', '', '', 0, md5(%(status)s || n), '/assistant/1', 'text', '', false, '',
       %(status)s, CASE %(status)s WHEN 'sent' THEN 1 ELSE 0 END, 5, 0,
       CASE %(status)s WHEN 'pending' THEN now() - interval '1 hour' + n * interval '1 ms' END, '', '', '',
       now() - interval '1 year' + n * interval '1 s', now()
FROM generate_series(%(first)s, %(last)s) AS n
"""  # noqa: S608  our own words
_INDEXES = """
SELECT format('ALTER TABLE notification_records DROP CONSTRAINT %I', conname),
       format('ALTER TABLE notification_records ADD CONSTRAINT %I ', conname) || pg_get_constraintdef(oid)
FROM pg_constraint WHERE conrelid = 'notification_records'::regclass AND contype = 'u'
UNION ALL
SELECT format('DROP INDEX %I', indexname), indexdef
FROM pg_indexes LEFT JOIN pg_constraint ON conname = indexname
WHERE tablename = 'notification_records' AND conname IS NULL
"""


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Explain a claim in both databases, which are made at the first time."""
    touched = {}
    for count in (size.few_finished, size.many_finished):
        url = database_with(environment, finished=count, due=DUE)
        with contextlib.closing(psycopg2.connect(url)) as database, database.cursor() as cursor:
            touched[count] = pages(cursor)
            database.rollback()
    few, many = touched[size.few_finished], touched[size.many_finished]
    results.add("claim_flatness", many / few, **{"pages many": many, "pages few": few})
    results.notes["claim_flatness"] = f"{size.many_finished:,} against {size.few_finished:,} finished rows"


def pages(cursor: Any) -> int:
    """Return the pages that the engine's claim of 200 touches; the caller's transaction is to be rolled back."""
    from notifications.sql import FORBID_SORT

    sql, parameters = statement()
    sql = sql.removeprefix(FORBID_SORT)
    cursor.execute(f"{FORBID_SORT} EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", parameters)
    [(answer,)] = cursor.fetchall()
    plan = answer[0]["Plan"]
    if plan["Actual Rows"] != LIMIT:
        raise BenchmarkError(f"claiming: {plan['Actual Rows']} rows instead of {LIMIT}")
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


class _Caught(Exception):
    """The claim's statement, instead of its environment."""


def statement() -> tuple[str, Any]:
    """Return the engine's claim of 200 rows, as it would be executed."""
    from django.db import connection
    from django.utils import timezone

    from notifications.conf import service_options
    from notifications.delivery.claim import claim

    def catch(_execute: Callable[..., Any], sql: str, parameters: Any, _many: bool, _context: Any) -> NoReturn:
        raise _Caught(sql, parameters)

    try:
        with connection.execute_wrapper(catch):
            # A claim with a clock of its own is not prepared, and is the first statement.
            claim(LIMIT, channels=["feishu"], options=service_options(), clock=timezone.now)
    except _Caught as caught:
        sql, parameters = caught.args
        return sql, parameters
    raise BenchmarkError("the claim executes nothing")


def database_with(environment: BenchmarkEnvironment, *, finished: int, due: int) -> str:
    """Return the address of the database with so many finished and due records. It is made at the first call."""
    name = f"finished_{finished}_due_{due}"
    url = environment.postgres.url.rpartition("/")[0] + f"/{name}"
    if not environment.query("SELECT 1 FROM pg_database WHERE datname = %s", (name,)):
        environment.query(f"CREATE DATABASE {name}")
        migrate = environment.processes.start("release", {"DATABASE_URL": url})
        if migrate.wait(PATIENCE):
            raise BenchmarkError(migrate.log)
        with contextlib.closing(psycopg2.connect(url)) as database, database.cursor() as cursor:
            database.autocommit = True
            fill(cursor, 1, finished, pending=due)
    return url


def fill(cursor: Any, first: int, last: int, pending: int = 0) -> None:
    """Insert finished and due rows, then make the indexes, which is quicker; leave the table as autovacuum would."""
    cursor.execute("SET maintenance_work_mem = '512MB'")
    cursor.execute(_INDEXES)
    indexes = cursor.fetchall()
    for drop, _create in indexes:
        cursor.execute(drop)
    for status, start, end in (("sent", first, last), ("pending", 1, pending)):
        for chunk in range(start, end + 1, CHUNK):
            cursor.execute(_FILL, {"status": status, "first": chunk, "last": min(end, chunk + CHUNK - 1)})
    for _drop, create in indexes:
        cursor.execute(create)
    cursor.execute("VACUUM ANALYZE notification_records")
