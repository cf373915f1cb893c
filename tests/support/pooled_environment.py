"""An environment behind PgBouncer in transaction mode, with few connections for many clients."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg2

from dev.pgbouncer import PgBouncer
from dev.ports import free_port
from dev.waiting import wait_until
from tests.support.fault_environment import FaultEnvironment
from tests.support.paths import ROOT

POOL = 3
"""Connections to PostgreSQL for everybody together."""
THREADS, TIMES, EACH = 6, 10, 5
"""How many ask side by side, how often each, and for how many notifications in one transaction."""
MANUAL = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").partition("## PgBouncer")[2]

ASK = f"""
import contextlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from django.db import InterfaceError, OperationalError, connection, transaction
from notifications.api import request_notifications
from tests.support.payloads import payload_of

start = Barrier({THREADS})

def ask(thread):
    start.wait()  # so that each has a thread and a connection of its own
    done = []
    for time in range({TIMES}):
        keys = [f"{{name}}-{{thread}}-{{time}}-{{number}}" for number in range({EACH})]
        with contextlib.suppress(KeyError, InterfaceError, OperationalError), transaction.atomic():
            request_notifications([payload_of(user, "undone-" + key) for key in keys])
            raise KeyError
        while True:  # a caller whose transaction failed asks again
            try:
                with transaction.atomic():
                    asked = request_notifications([payload_of(user, key) for key in keys])
                break
            except (InterfaceError, OperationalError):
                connection.close()
        done += [one.record_id for one in asked]
    return done

with ThreadPoolExecutor({THREADS}) as pool:
    result = sum(pool.map(ask, range({THREADS})), [])
"""

SERVERS_TAKEN = f"""
import os, psycopg2
def take_servers():
    # The connection that was given back last is given out first, so this takes the one we have just used.
    others = [psycopg2.connect(os.environ["DATABASE_URL"]) for _ in range({POOL - 1})]
    for other in others:
        other.cursor().execute("SELECT 1")
    return others
"""


class PooledEnvironment:
    """An environment whose processes reach PostgreSQL through PgBouncer only."""

    def __init__(self, environment: FaultEnvironment, bouncer: PgBouncer) -> None:
        self.environment = environment
        self.bouncer = bouncer
        self.port = free_port()

    def direct(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement on PostgreSQL itself."""
        with contextlib.closing(psycopg2.connect(self.bouncer.upstream)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def cut_servers(self) -> None:
        """End every connection between PgBouncer and PostgreSQL."""
        self.direct(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def renew_servers(self) -> None:
        """Let PgBouncer connect anew, as after a change of the role's settings."""
        self.bouncer.console("RECONNECT")
        wait_until(lambda: not any(row["close_needed"] for row in self.bouncer.console("SHOW SERVERS")), "all are new")

    def ask(self, name: str, user: int) -> list[int]:
        """Ask for notifications in many transactions, between others that roll back; return the record ids."""
        done: list[int] = self.environment.run(f"name, user = {name!r}, {user}\n{ASK}")
        assert len(set(done)) == THREADS * TIMES * EACH
        return done

    def sends(self, records: list[int]) -> dict[int, int]:
        """Return how often the sandbox took each of these."""
        return {record: times for record, times in self.environment.sends().items() if record in records}

    def unsent(self, records: list[int]) -> list[tuple[Any, ...]]:
        """Return those of the records that are not sent."""
        return self.environment.rows(
            "SELECT id, status FROM notification_records WHERE id = ANY(%s) AND status <> 'sent'", records
        )

    def start_fleet(self) -> None:
        """Start two workers, beat, web and a driver."""
        workers = [self.environment.start("worker", WORKER_NAME=name) for name in ("one", "two")]
        self.environment.start("beat")
        self.environment.start("web", PORT=str(self.port), WEB_CONCURRENCY="1")
        self.environment.start_driver()
        for worker in workers:
            wait_until(lambda worker=worker: " ready." in worker.log, "the worker is ready")  # type: ignore[misc]
