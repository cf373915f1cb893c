"""Everything that runs: servers behind proxies, the sandbox as the oracle, and the Procfile's processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
from cryptography.fernet import Fernet

from dev.faults.tracing import HEADER
from dev.keeper import private_directory
from dev.ports import free_port
from dev.postgres import Postgres
from dev.procfile import Handle, Processes
from dev.proxy import Proxy
from dev.valkey import Valkey
from notifications.testing.sandbox.server import Sandbox

ROOT = Path(__file__).resolve().parents[2]
LEASE = 4.0
LOCK_TTL = LEASE + 4.0
TERM_SECONDS = 40.0
WAITS = {
    "NOTIFICATIONS_LEASE": "4",
    "NOTIFICATIONS_TOTAL_TIMEOUT": "2",
    "NOTIFICATIONS_READ_TIMEOUT": "1.5",
    "NOTIFICATIONS_CONNECT_TIMEOUT": "1",
    "NOTIFICATIONS_HELD_KEY_DELAY": "1",
    "NOTIFICATIONS_RETRY_BASE_DELAY": "1",
    "NOTIFICATIONS_RETRY_MAX_DELAY": "4",
    "NOTIFICATIONS_RETRY_AFTER_MAX": "4",
    "NOTIFICATIONS_SWEEP_INTERVAL": "2",
    "NOTIFICATIONS_PROBE_INTERVAL": "2",
    "NOTIFICATIONS_RESUME_RATE": "50",
    "NOTIFICATIONS_NUDGE_TTL": "2",
    "NOTIFICATIONS_REDIS_SILENCE": "1",
    "NOTIFICATIONS_MAX_ATTEMPTS": "40",
    "DATABASE_TIMEOUT": "3",
}
"""Production's settings with short waits, and attempts enough to outlive the faults."""
CREW = {"worker": 3, "beat": 2, "web": 1, "driver": 1}
"""How many of each run; the first worker has a clock that jumps, where libfaketime is installed."""
FAKETIME = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


class Stage:
    """What runs, and who of it is meant to."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, control: str) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.postgres = Postgres(stack.enter_context(private_directory()))
        self.valkey = Valkey(stack.enter_context(private_directory()))
        for server in (self.postgres, self.valkey):
            server.start()
            stack.callback(server.kill)
        self.sandbox = stack.enter_context(Sandbox(folder / "journal"))
        self.proxies = {
            name: stack.enter_context(Proxy(port))
            for name, port in (
                ("database", self.postgres.port), ("redis", self.valkey.port), ("receiver", self.sandbox.port),
            )
        }  # fmt: skip
        self.clock = folder / "clock"
        self.clock.write_text("+0")
        self.port = free_port()
        self.origin = f"http://127.0.0.1:{self.proxies['receiver'].port}"
        os.environ |= WAITS | {
            "DJANGO_SETTINGS_MODULE": "dev.faults.settings",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "NOTIFICATIONS_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "NOTIFICATIONS_SANDBOX_ORIGINS": self.origin,
            "ALLOWED_HOSTS": "127.0.0.1",
            "HTTPS": "false",
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
        }
        through = {
            "DATABASE_URL": self.proxies["database"].url(self.postgres.url),
            "REDIS_URL": self.proxies["redis"].url(self.valkey.url),
            "CONTROL": control,
        }
        self.processes = stack.enter_context(Processes(ROOT / "Procfile", self.logs, through))
        self.processes.entries["driver"] = "python manage.py deliver_due --forever --interval 0.5"
        self.crew: dict[str, list[Handle]] = {name: [] for name in CREW}
        self.leaving: list[tuple[float, Handle]] = []
        self.drivers: set[int] = set()
        """Process ids of every driver there was: they take no locks."""
        self._jumping: Handle | None = None
        self._count = 0

    def migrate(self) -> None:
        """Make the tables. Raises RuntimeError with the log if that failed."""
        release = self.processes.start("release", {"DATABASE_URL": self.postgres.url})
        if release.wait(60):
            raise RuntimeError(release.log)

    def supervise(self) -> None:
        """Start what is missing, and kill what was asked to end and did not."""
        for name, wanted in CREW.items():
            self.crew[name] = [handle for handle in self.crew[name] if handle.alive]
            while len(self.crew[name]) < wanted:
                self.crew[name].append(self._start(name))
        for deadline, handle in list(self.leaving):
            if not handle.alive or time.monotonic() > deadline:
                handle.kill()
                self.leaving.remove((deadline, handle))

    def ask_to_end(self, name: str, handle: Handle) -> None:
        """Send SIGTERM; a successor starts at once, as in a rolling deploy."""
        handle.ask_to_end()
        self.crew[name].remove(handle)
        self.leaving.append((time.monotonic() + TERM_SECONDS, handle))

    def everyone(self) -> list[tuple[str, Handle]]:
        """List what runs, with its name."""
        return [(name, handle) for name, handles in self.crew.items() for handle in handles if handle.alive]

    def last_sender(self) -> int:
        """Return the process id of whoever made the last delivery; 0 before the first."""
        deliveries = self.sandbox.deliveries()
        return int(deliveries[-1].headers.get(HEADER, 0)) if deliveries else 0

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query, past the proxy."""
        with (
            contextlib.closing(psycopg2.connect(self.postgres.url, connect_timeout=2)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql, parameters)
            return cursor.fetchall()

    def terminate_backends(self) -> None:
        """Cut every connection of PostgreSQL's, if it is up."""
        with contextlib.suppress(psycopg2.Error):
            self.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def heal(self) -> None:
        """Lift every fault: servers up, proxies open, clock right, everyone awake."""
        for server in (self.postgres, self.valkey):
            if server.running:
                os.kill(server.pid, signal.SIGCONT)
            else:
                server.start()
        for proxy in self.proxies.values():
            if proxy.mode != "pass":
                proxy.mode = "pass"
                proxy.reset_all()
            proxy.delay = 0.0
        self.clock.write_text("+0")
        for _name, handle in self.everyone():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(handle.pid, signal.SIGCONT)
        self.supervise()

    def _start(self, name: str) -> Handle:
        self._count += 1
        env = {"WORKER_NAME": f"{name}{self._count}"}
        if name == "worker" and FAKETIME and not (self._jumping and self._jumping.alive):
            env |= {
                "LD_PRELOAD": str(FAKETIME[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        handle = self.processes.start(name, env)
        if "LD_PRELOAD" in env:
            self._jumping = handle
        if name == "driver":
            self.drivers.add(handle.pid)
        return handle


@contextlib.contextmanager
def stage(folder: Path, control: str) -> Iterator[Stage]:
    """Bring everything up, and take it down afterwards.

    Args:
        folder: for logs and the sandbox's journal.
        control: the guard that is off, see dev.faults.controls; empty for none.
    """
    with contextlib.ExitStack() as stack:
        running = Stage(folder, stack, control)
        running.migrate()
        yield running
