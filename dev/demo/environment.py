"""The stage: environment, sandbox and processes."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from cryptography.fernet import Fernet

from dev.keeper import private_directory
from dev.ports import free_port
from dev.procfile import Handle, Processes
from notifications.testing.sandbox.server import Sandbox

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

SHORT_WAITS = {
    "NOTIFICATIONS_TOTAL_TIMEOUT": "4",
    "NOTIFICATIONS_LEASE": "6",
    "NOTIFICATIONS_HELD_KEY_DELAY": "1",
    "NOTIFICATIONS_RETRY_BASE_DELAY": "1",
    "NOTIFICATIONS_RETRY_MAX_DELAY": "3",
    "NOTIFICATIONS_SWEEP_INTERVAL": "1",
    "NOTIFICATIONS_PROBE_INTERVAL": "1",
}
"""All that differs from production, so that nobody waits for half an hour."""


class StageError(RuntimeError):
    """Something on the stage did not come up."""


def wait_until(true: Callable[[], object], what: str) -> None:
    """Wait until `true` is. Raises StageError naming `what` when it never is."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise StageError(f"never came true: {what}")
        time.sleep(0.05)


class Stage:
    """Everything that runs during the demo."""

    def __init__(self, processes: Processes, sandbox: Sandbox, port: int) -> None:
        self.processes = processes
        self.sandbox = sandbox
        self.port = port
        self.workers: list[Handle] = []

    def start(self) -> None:
        """Migrate, then start web, two workers and beat, and wait until they answer."""
        release = self.processes.start("release")
        if release.wait(PATIENCE):
            raise StageError(release.log)
        web = self.processes.start("web", {"PORT": str(self.port)})
        self.workers = [self.start_worker(f"worker{number}") for number in (1, 2)]
        self.processes.start("beat")
        for worker in self.workers:
            wait_until(lambda worker=worker: " ready." in worker.log, "a worker is ready")  # type: ignore[misc]
        wait_until(lambda: web.alive and self._web_answers(), "the web process answers")

    def start_worker(self, name: str) -> Handle:
        """Start one more worker."""
        return self.processes.start("worker", {"WORKER_NAME": name})

    def kill_the_sending_worker(self) -> str:
        """SIGKILL the worker that has a connection to the sandbox, start another, and return the first one's name."""
        for worker in self.workers:
            connections = psutil.Process(worker.pid).net_connections("tcp")
            if any(getattr(one.raddr, "port", 0) == self.sandbox.port for one in connections):
                worker.kill()
                self.workers.append(self.start_worker("worker3"))
                return worker.label
        raise StageError("no worker is sending")

    def _web_answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/admin/login/")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Set the environment up, for this process too, and take everything down afterwards.

    DATABASE_URL and REDIS_URL must be set. Logs are shown if anything goes wrong.
    """
    with private_directory() as logs, Sandbox() as sandbox:
        os.environ |= SHORT_WAITS | {
            "SECRET_KEY": secrets.token_urlsafe(50),
            "NOTIFICATIONS_ENCRYPTION_KEYS": Fernet.generate_key().decode(),
            "NOTIFICATIONS_SANDBOX_ORIGINS": sandbox.origin,
            "NOTIFICATIONS_FRONTEND_BASE_URL": "https://app.example.com",
            "ALLOWED_HOSTS": "127.0.0.1,localhost",
            "HTTPS": "false",
            "HOST": "127.0.0.1",
            "DJANGO_SETTINGS_MODULE": "smartmate.settings",
        }
        with Processes(ROOT / "Procfile", logs) as processes:
            try:
                yield Stage(processes, sandbox, free_port())
            except Exception:
                for log in sorted(logs.glob("*.log")):
                    tail = log.read_text(errors="replace").splitlines()[-15:]
                    sys.stderr.write("\n".join([f"--- {log.name}", *tail, ""]))
                raise
