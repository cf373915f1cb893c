"""A whole installation for acceptance tests: its own database and Valkey, a sandbox, and the Procfile's processes."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import psycopg2

from dev.environment import Environment
from dev.keeper import private_directory
from dev.postgres import Postgres
from dev.valkey import Valkey
from dev.waiting import PATIENCE, wait_until
from tests.support.paths import ROOT
from tests.support.project_shell import Shell

BOUNDS = {
    "NOTIFICATIONS_TOTAL_TIMEOUT": "2",
    "NOTIFICATIONS_READ_TIMEOUT": "2",
    "NOTIFICATIONS_LEASE": "4",
    "NOTIFICATIONS_HELD_KEY_DELAY": "1",
    "NOTIFICATIONS_RETRY_BASE_DELAY": "1",
    "NOTIFICATIONS_RETRY_MAX_DELAY": "2",
    "NOTIFICATIONS_SWEEP_INTERVAL": "1",
    "NOTIFICATIONS_PROBE_INTERVAL": "1",
    "NOTIFICATIONS_RESUME_RATE": "500",
    "NOTIFICATIONS_NUDGE_TTL": "2",
}
"""Production's settings with short waits; nothing else differs."""


AnyEnvironment = TypeVar("AnyEnvironment", bound="ProjectEnvironment")


class ProjectEnvironment(Environment):
    """Real processes around one database, one Valkey and one sandbox."""

    valkey: Valkey

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        super().__init__(logs, {**os.environ, **BOUNDS, "HOST": "127.0.0.1", **env})
        self._shell: Shell | None = None
        self._users = 0

    @property
    def shell(self) -> Shell:
        """The process that runs code in the project, with the environment as it is now."""
        if self._shell and self._shell.env != self._shell_env():
            self.close()
        if not self._shell:
            self._shell = self._new_shell()
        return self._shell

    def _new_shell(self, **env: str) -> Shell:
        return Shell(ROOT, self._shell_env() | env, self.logs / "shell.log", patience=PATIENCE)

    def _shell_env(self) -> dict[str, str]:
        return {"DJANGO_SETTINGS_MODULE": "smartmate.settings"} | self.env

    def close(self) -> None:
        """End what the environment started for itself."""
        if self._shell:
            self._shell.close()
        self._shell = None

    def run(self, code: str, **env: str) -> Any:
        """Run Python inside the project, as another app of it would; `result` is returned through JSON.

        env: what is different for this code, which then gets a process of its own from the start.
        """
        if not env:
            return self.shell.run(code)
        with contextlib.closing(self._new_shell(**env)) as shell:
            return shell.run(code)

    def manage(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a management command to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT, env=self.env | env, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def add_user(self, *answers: str) -> tuple[int, str]:
        """Add a user whose endpoint in the sandbox gives these answers; return the user's id and the endpoint's key."""
        self._users += 1
        key = f"user{self._users:028d}"
        self.sandbox.script(key, *answers or ("ok",))
        user = self.run(
            "from django.contrib.auth.models import User\n"
            "from notifications.models import UserNotificationChannel\n"
            f"user = User.objects.create_user('user{self._users}')\n"
            f"UserNotificationChannel.objects.create(user=user, channel='feishu',"
            f" webhook_url={self.sandbox.origin + '/flow/api/trigger-webhook/' + key!r})\n"
            "result = user.pk"
        )
        return user, key

    def request(self, user: int, *keys: str, after: str = "", **env: str) -> list[int]:
        """Ask for notifications through the API, in one committed transaction; return the record ids.

        after: code that runs when it has committed.
        """
        done: list[int] = self.run(
            "from django.db import transaction\n"
            "from notifications.api import request_notifications\n"
            "from tests.support.payloads import payload_of\n"
            "with transaction.atomic():\n"
            f"    done = request_notifications([payload_of({user}, key) for key in {list(keys)!r}])\n"
            f"result = [one.record_id for one in done]\n{after}",
            **env,
        )
        return done

    def statuses(self) -> dict[str, int]:
        """Return the number of records by status."""
        return dict(self.rows("SELECT status, count(*) FROM notification_records GROUP BY 1"))

    def wait_for_status(self, status: str, count: int) -> None:
        """Wait until `count` records have the status."""
        wait_until(lambda: self.statuses().get(status) == count, lambda: f"{count} {status}, not {self.statuses()}")

    def sends(self) -> dict[int, int]:
        """Return how often the sandbox took each notification."""
        taken: dict[int, int] = {}
        for delivery in self.sandbox.deliveries(accepted=True):
            if delivery.notification_id is not None:
                taken[delivery.notification_id] = taken.get(delivery.notification_id, 0) + 1
        return taken


@contextlib.contextmanager
def running_environment(
    logs: Path, kind: type[AnyEnvironment], *, postgres: Postgres | None = None, **env: str
) -> Iterator[AnyEnvironment]:
    """Start an environment: a migrated, empty database, Valkey and sandbox. The test starts the processes.

    kind: the class to make.
    postgres: a server that the test may stop; by default a database on the server that all tests share.
    env: variables; with DATABASE_URL among them no database is created.
    """
    with contextlib.ExitStack() as databases:
        migrated = not postgres and "DATABASE_URL" not in env
        if migrated:
            env["DATABASE_URL"] = databases.enter_context(database())
        elif postgres:
            env.setdefault("DATABASE_URL", postgres.url)
        with kind(logs, env) as environment:
            environment.valkey = environment.start_server(Valkey(environment.stack.enter_context(private_directory())))
            environment.start_sandbox()
            environment.env |= {"REDIS_URL": environment.valkey.url} | env
            environment.stack.callback(environment.close)
            if not migrated:
                environment.migrate()
            yield environment


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Make a migrated, empty database on the server of DATABASE_URL, and drop it afterwards."""
    with _database(_migrated()) as url:
        yield url


@contextlib.contextmanager
def empty_database() -> Iterator[str]:
    """Make a database without tables on the server of DATABASE_URL, and drop it afterwards."""
    with _database("template1") as url:
        yield url


@cache
def _migrated() -> str:
    """Return the name of the database that others are copies of: migrating each would take seconds."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    url = stack.enter_context(_database("template1"))
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate", "--noinput"],
        cwd=ROOT, env=os.environ | {"DATABASE_URL": url}, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return urlsplit(url).path[1:]


@contextlib.contextmanager
def _database(template: str) -> Iterator[str]:
    server = os.environ["DATABASE_URL"]
    name = f"acceptance_{uuid.uuid4().hex[:12]}"
    assert re.fullmatch(r"\w+", name)
    with contextlib.closing(psycopg2.connect(server)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            try:
                yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
            finally:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
