"""The environment of the benchmark: private servers, receivers, users, records, and the processes that are measured.

PostgreSQL does not wait for the disk here (fsync is off), which favours the contender that commits most.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg2
import redis

from benchmarks.receiver import PATH, Asyncio, Nginx, Receiver, nginx
from benchmarks.serving import CRAWLING, HANGING, QUICK, SLOW
from benchmarks.watching import BenchmarkError
from benchmarks.wire import SUMMARY
from dev.environment import ROOT, Environment, project_variables
from dev.keeper import private_directory
from dev.postgres import Postgres
from dev.procfile import Handle
from dev.valkey import Valkey

FAST, BOT = "fastfast", "robotrobot"
"""Keys of further endpoints: the fast receiver's, and a custom bot with its rate limit."""
BOT_PATH = "/open-apis/bot/v2/hook/"

_PENDING = """
INSERT INTO notification_records (
    channel, user_id, trigger_id, preview_id, trigger_type, target_type, target_id, dedupe_key, target_url,
    summary_text, fallback_text, fallback_used, trace_id, status, attempt_count, max_attempts, round, next_attempt_at,
    last_error_code, last_error, provider_message_id
)
SELECT %(channel)s, (%(users)s::bigint[])[1 + n %% %(of)s], '', 'preview', '', '', 0, 'bench:' || n, '/assistant/1',
       %(summary)s, '', false, '', 'pending', 0, 5, 0, statement_timestamp(), '', '', ''
FROM generate_series(1, %(count)s) AS n
"""


class BenchmarkEnvironment(Environment):
    """Private servers, receivers, users, and the processes that are measured. `durable`: PostgreSQL waits for the disk.

    The receivers take the place of the sandbox: they are faster.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        super().__init__(folder / "logs", project_variables())
        self.logs.mkdir()
        self.durable = durable
        self.users: dict[str, list[int]] = {}
        """Ids of users by the key of their endpoint."""

    def __enter__(self) -> Self:
        try:
            self._start_servers()
            self.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_servers(self) -> None:
        def directory() -> Path:
            return self.stack.enter_context(private_directory())

        self.postgres = self.start_server(Postgres(directory(), durable=self.durable))
        self.valkey = self.start_server(Valkey(directory()))
        self.asyncio = self.start_server(Asyncio(directory()))
        self.fast: Receiver = self.start_server(Nginx(directory())) if nginx() else self.asyncio
        self.url = f"{self.fast.url}{PATH}{FAST}"
        self.env |= {
            "NOTIFICATIONS_SANDBOX_ORIGINS": f"{self.fast.url},{self.asyncio.url}",
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
            "BENCH_URL": self.url,
        }
        self.export()
        self.database = psycopg2.connect(self.postgres.url)
        self.stack.callback(self.database.close)
        self.database.autocommit = True
        self.redis = self.stack.enter_context(redis.Redis.from_url(self.valkey.url))

    def prepare(self) -> None:
        """Make the tables and a handful of users for each endpoint."""
        self.migrate(DJANGO_SETTINGS_MODULE="benchmarks.contenders.post_office_settings")
        import django

        django.setup()
        from django.contrib.auth import get_user_model

        from notifications.models import UserNotificationChannel

        counts = {FAST: 5, QUICK: 50, SLOW: 5, CRAWLING: 5, HANGING: 5, BOT: 1}
        for key, count in counts.items():
            receiver = self.fast if key == FAST else self.asyncio
            channel, path = ("feishu_bot", BOT_PATH) if key == BOT else ("feishu", PATH)
            self.users[key] = []
            for number in range(count):
                user = get_user_model().objects.create_user(f"{key}{number}")
                address = f"{receiver.url}{path}{key}"
                UserNotificationChannel.objects.create(user=user, channel=channel, webhook_url=address)
                self.users[key].append(user.pk)

    def query(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows, if it has any."""
        with self.database.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    def number(self, sql: str) -> int:
        """Return the one number a query gives."""
        return int(self.query(sql)[0][0])

    def clear(self) -> None:
        """Empty tables and Redis."""
        tables = "notification_records, notification_delivery_attempts, notification_events, post_office_email"
        self.query(f"TRUNCATE {tables} CASCADE")
        self.redis.flushall()

    def preload(self, count: int, users: Sequence[int], channel: str = "feishu") -> None:
        """Insert records that are due, and let PostgreSQL look at them as autovacuum would have."""
        self.query(
            _PENDING, {"count": count, "users": list(users), "of": len(users), "summary": SUMMARY, "channel": channel}
        )
        self.query("ANALYZE notification_records, notification_delivery_attempts, user_notification_channels")

    @contextlib.contextmanager
    def running(
        self, name: str, command: str = "", env: Mapping[str, str] | None = None, copies: int = 1
    ) -> Iterator[list[Handle]]:
        """Run an entry of the Procfile, or a command of a contender, while the block lasts."""
        if command:
            self.processes.entries[name] = command
        handles = [self.start(name, **(env or {})) for _ in range(copies)]
        try:
            yield handles
        except Exception:
            for handle in handles:
                sys.stderr.write(f"--- {handle.label}\n{handle.log[-3000:]}\n")
            raise
        finally:
            for handle in handles:
                handle.kill()  # they have nothing left to do, and a warm shutdown takes seconds
                self.processes.handles.remove(handle)

    @contextlib.contextmanager
    def engine(self, env: Mapping[str, str] | None = None, processes: int = 2) -> Iterator[list[Handle]]:
        """Run the Procfile's worker with some processes, ready and idle."""
        with self.running("worker", env={"WORKER_PROCESSES": str(processes), **(env or {})}) as handles:
            for handle in handles:
                self.wait_for_worker(handle, processes)
            yield handles

    def program(self, module: str, **env: str) -> str:
        """Run a module of ours to its end, its log in a file; return what it printed."""
        with (self.logs / f"{module}.log").open("ab") as log:
            done = subprocess.run(
                [sys.executable, "-m", module],
                cwd=ROOT,
                env=os.environ | env,
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
            )
        if done.returncode:
            raise BenchmarkError((self.logs / f"{module}.log").read_text()[-3000:])
        return done.stdout.decode()
