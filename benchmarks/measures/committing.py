"""What NOTIFY costs the commits of many callers: 32 connections that request one notification in each transaction.

Three kinds in turn: without a nudge; with a nudge by NOTIFY while two listeners take the wake-ups; and, as a figure to
compare with, with a NOTIFY in each transaction. PostgreSQL waits for the disk here, as in production: a commit that
notifies holds its lock meanwhile.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from benchmarks.figures import Results
from benchmarks.size import Size
from dev.keeper import private_directory
from dev.postgres import Postgres

if TYPE_CHECKING:
    from benchmarks.environment import BenchmarkEnvironment

KEYS = frozenset({"notify_commit_cost"})
PROGRAMS = 2
"""Processes of 16 callers each."""
KINDS = ("none", "notify", "within")
START_SECONDS = 15.0
"""Time for the processes to get ready."""
ADD_USER = """
INSERT INTO auth_user (password, is_superuser, username, first_name, last_name, email, is_staff, is_active, date_joined)
VALUES ('', false, 'caller', '', '', '', false, true, now()) RETURNING id
"""


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Let the processes commit in each kind in turn."""
    import psycopg2

    with private_directory() as directory:
        server = Postgres(directory, durable=True)
        try:
            server.start()
            environment.migrate(DATABASE_URL=server.url)
            database = psycopg2.connect(server.url)
            with database, database.cursor() as cursor:
                cursor.execute(ADD_USER)
                [user] = cursor.fetchone() or (0,)
            database.close()
            variables = {
                "DATABASE_URL": server.url,
                "BENCH_KINDS": ",".join(KINDS * size.commit_times),
                "BENCH_START": str(time.monotonic() + START_SECONDS),
                "BENCH_SECONDS": str(size.commit_seconds),
                "BENCH_USER": str(user),
            }
            with ThreadPoolExecutor(PROGRAMS) as pool:
                printed = pool.map(
                    lambda _number: environment.program("benchmarks.programs.committing", **variables), range(PROGRAMS)
                )
            done = sum((Counter(json.loads(text)) for text in printed), Counter[str]())
        finally:
            server.kill()
    seconds = size.commit_seconds * size.commit_times
    results.add(
        "notify_commit_cost",
        done["notify"] / done["none"],
        **{
            "commits/s with": done["notify"] / seconds,
            "commits/s without": done["none"] / seconds,
            "commits/s with NOTIFY in each": done["within"] / seconds,
        },
    )
