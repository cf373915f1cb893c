"""The environment of the soak: servers behind proxies, the sandbox, and the Procfile's processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any, Self

import psycopg2

from dev.environment import Environment, project_variables
from dev.faults.tracing import HEADER
from dev.keeper import private_directory
from dev.ports import free_port
from dev.postgres import Postgres
from dev.procfile import Handle
from dev.proxy import Proxy
from dev.valkey import Valkey

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
MEMBERS = {"worker": 2, "beat": 2, "web": 1, "driver": 1}
"""How many programs of each kind run; one worker has a clock that jumps, where libfaketime is installed."""
WORKER_PROCESSES = 2
"""Processes of each worker, besides their parent."""
FAKETIME = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


class SoakEnvironment(Environment):
    """Servers behind proxies, the sandbox as the receiver that counts, and the processes that should run.

    Args:
        folder: for logs and the sandbox's journal.
        control: the guard that is switched off, see dev.faults.controls; empty for none.
    """

    def __init__(self, folder: Path, control: str) -> None:
        super().__init__(folder / "logs", project_variables(**WAITS, DJANGO_SETTINGS_MODULE="dev.faults.settings"))
        self.clock = folder / "clock"
        self.port = free_port()
        self.members: dict[str, list[Handle]] = {name: [] for name in MEMBERS}
        self.leaving: list[tuple[float, Handle]] = []
        self.drivers: set[int] = set()
        """Process ids of every driver there was: they take no locks."""
        self._folder = folder
        self._control = control
        self._jumping: Handle | None = None
        self._count = 0

    def __enter__(self) -> Self:
        try:
            self._start_servers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_servers(self) -> None:
        self.postgres = self.start_server(Postgres(self.stack.enter_context(private_directory())))
        self.valkey = self.start_server(Valkey(self.stack.enter_context(private_directory())))
        sandbox = self.start_sandbox(self._folder / "journal")
        ports = {"database": self.postgres.port, "redis": self.valkey.port, "receiver": sandbox.port}
        self.proxies = {name: self.stack.enter_context(Proxy(port)) for name, port in ports.items()}
        self.origin = f"http://127.0.0.1:{self.proxies['receiver'].port}"
        self.clock.write_text("+0")
        self.processes.entries["driver"] = "python manage.py deliver_due --forever --interval 0.5"
        self.env |= {
            "NOTIFICATIONS_SANDBOX_ORIGINS": self.origin,
            "PORT": str(self.port),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
        }
        self.export()
        self.migrate()
        # This process reaches the servers themselves; the processes under test go through the proxies.
        self.env |= {
            "DATABASE_URL": self.proxies["database"].url(self.postgres.url),
            "REDIS_URL": self.proxies["redis"].url(self.valkey.url),
            "CONTROL": self._control,
        }

    def supervise(self) -> None:
        """Start missing processes, and kill processes that did not end in time after SIGTERM."""
        for name, wanted in MEMBERS.items():
            self.members[name] = [handle for handle in self.members[name] if handle.alive]
            while len(self.members[name]) < wanted:
                self.members[name].append(self._start(name))
        for deadline, handle in list(self.leaving):
            if not handle.alive or time.monotonic() > deadline:
                handle.kill()
                self.leaving.remove((deadline, handle))

    def ask_to_end(self, name: str, handle: Handle) -> None:
        """Send SIGTERM; a successor starts at once, as in a rolling deploy."""
        handle.ask_to_end()
        self.members[name].remove(handle)
        self.leaving.append((time.monotonic() + TERM_SECONDS, handle))

    def running_processes(self) -> list[tuple[str, Handle]]:
        """Return the processes that run, each with its kind."""
        return [(name, handle) for name, handles in self.members.items() for handle in handles if handle.alive]

    def last_sender(self) -> int:
        """Return the process id of the sender of the last delivery; 0 before the first."""
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
        """End every fault: start servers, open proxies, correct the clock, continue stopped processes."""
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
        for _name, handle in self.running_processes():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(handle.pid, signal.SIGCONT)
        self.supervise()

    def _start(self, name: str) -> Handle:
        self._count += 1
        env = {"WORKER_NAME": f"{name}{self._count}", "WORKER_PROCESSES": str(WORKER_PROCESSES)}
        if name == "worker" and FAKETIME and not (self._jumping and self._jumping.alive):
            env |= {
                "LD_PRELOAD": str(FAKETIME[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
        handle = self.start(name, **env)
        if "LD_PRELOAD" in env:
            self._jumping = handle
        if name == "driver":
            self.drivers.add(handle.pid)
        return handle
