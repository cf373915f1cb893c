"""The environment of the demo: web, a worker of two processes, beat and the sandbox."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from dev.environment import Environment, project_variables
from dev.keeper import private_directory
from dev.ports import free_port
from dev.waiting import wait_until

SHORT_WAITS = {
    "NOTIFICATIONS_TOTAL_TIMEOUT": "4",
    "NOTIFICATIONS_LEASE": "6",
    "NOTIFICATIONS_HELD_KEY_DELAY": "1",
    "NOTIFICATIONS_RETRY_BASE_DELAY": "1",
    "NOTIFICATIONS_RETRY_MAX_DELAY": "3",
    "NOTIFICATIONS_SWEEP_INTERVAL": "1",
    "NOTIFICATIONS_PROBE_INTERVAL": "1",
}
"""All that differs from production: short waits, so that the demo takes a minute and not half an hour."""


class DemoEnvironment(Environment):
    """Everything that runs during the demo. DATABASE_URL and REDIS_URL must be set."""

    def __init__(self, logs: Path) -> None:
        servers = {name: os.environ[name] for name in ("DATABASE_URL", "REDIS_URL")}
        address = {"NOTIFICATIONS_FRONTEND_BASE_URL": "https://app.example.com"}
        super().__init__(logs, project_variables(**SHORT_WAITS, **servers, **address))
        self.port = free_port()

    def start_processes(self) -> None:
        """Migrate, start web, worker and beat, and wait until web and worker are ready."""
        self.migrate()
        web = self.start("web", PORT=str(self.port))
        self.worker = self.start("worker", WORKER_PROCESSES="2")
        self.start("beat")
        self.wait_for_worker(self.worker, 2)
        wait_until(lambda: web.alive and self._web_answers(), "the web process answers")

    def kill_sending_process(self) -> None:
        """SIGKILL the worker process that has a connection to the sandbox. Its parent starts another."""
        for pid in self.worker.children:
            connections = psutil.Process(pid).net_connections("tcp")
            if any(getattr(connection.raddr, "port", 0) == self.sandbox.port for connection in connections):
                os.kill(pid, signal.SIGKILL)
                return
        raise RuntimeError("no worker process has a connection to the sandbox")

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
def demo_environment() -> Iterator[DemoEnvironment]:
    """Start the sandbox, set the variables for this process too, and show the ends of the logs if the block fails."""
    with private_directory() as logs, DemoEnvironment(logs) as environment:
        environment.start_sandbox()
        environment.export()
        try:
            yield environment
        except Exception:
            for log in sorted(logs.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()[-15:]
                sys.stderr.write("\n".join([f"--- {log.name}", *lines, ""]))
            raise
