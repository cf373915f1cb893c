"""The project with its servers and processes, for the demo, the soak, the benchmark and the tests."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import psycopg2
from cryptography.fernet import Fernet

from dev.procfile import Handle, Processes
from dev.servers import Server
from dev.waiting import PATIENCE, wait_until
from notifications.testing.sandbox.server import Sandbox

ROOT = Path(__file__).resolve().parents[1]
AnyServer = TypeVar("AnyServer", bound=Server)


class Environment:
    """Servers, a sandbox and the Procfile's processes. All of them end with the `with` block.

    Args:
        logs: the folder for the log files of the processes.
        env: variables for all processes, on top of those of this process. A worker is one process unless they say more.
    """

    sandbox: Sandbox

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        self.logs = logs
        self.env = {"WORKER_PROCESSES": "1", **env}
        self.processes = Processes(ROOT / "Procfile", logs)
        self.stack = contextlib.ExitStack()
        """Ends what was started besides the processes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        # The processes first: they need the servers for a clean stop.
        with self.stack:
            self.processes.stop_all()

    def start_server(self, server: AnyServer) -> AnyServer:
        """Start a server, and kill it at the end. Returns the server."""
        self.stack.callback(server.kill)
        server.start()
        return server

    def start_sandbox(self, journal: Path | None = None) -> Sandbox:
        """Start the sandbox and allow the project to send to it. `journal`: the file for its deliveries."""
        self.sandbox = self.stack.enter_context(Sandbox(journal))
        self.env["NOTIFICATIONS_SANDBOX_ORIGINS"] = self.sandbox.origin
        return self.sandbox

    def export(self) -> None:
        """Give this process the variables too, so that it can set Django up."""
        os.environ |= self.env

    def start(self, name: str, **env: str) -> Handle:
        """Start one more instance of an entry of the Procfile."""
        return self.processes.start(name, self.env | env)

    def start_worker(self, **env: str) -> Handle:
        """Start a worker and wait until all its processes accept messages."""
        return self.wait_for_worker(self.start("worker", **env), int((self.env | env)["WORKER_PROCESSES"]))

    def wait_for_worker(self, worker: Handle, processes: int = 1) -> Handle:
        """Wait until so many processes of a worker have said that they accept messages."""
        wait_until(lambda: worker.log.count(" ready.") >= processes, "the worker is ready")
        return worker

    def migrate(self, **env: str) -> None:
        """Create the tables.

        Raises:
            RuntimeError: that failed; the message is the log.
        """
        release = self.start("release", **env)
        if release.wait(PATIENCE):
            raise RuntimeError(release.log)

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run a statement, commit it, and return its rows."""
        connecting = psycopg2.connect(self.env["DATABASE_URL"], connect_timeout=5)
        with contextlib.closing(connecting) as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []


def project_variables(**env: str) -> dict[str, str]:
    """Return what production's settings need, with new secrets, and with these variables on top."""
    return {
        "DJANGO_SETTINGS_MODULE": "smartmate.settings",
        "SECRET_KEY": secrets.token_urlsafe(50),
        "NOTIFICATIONS_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
        "ALLOWED_HOSTS": "127.0.0.1,localhost",
        "HTTPS": "false",
        "HOST": "127.0.0.1",
    } | env
