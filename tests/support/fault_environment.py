"""An environment whose processes can be broken at named points, and the invariants that must hold afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from dev.keeper import private_directory
from dev.other_app import other_app
from dev.postgres import Postgres
from dev.procfile import Handle
from dev.proxy import Proxy
from dev.waiting import wait_until
from tests.support.environment import ProjectEnvironment, running_environment
from tests.support.paths import ROOT

__all__ = ["FaultEnvironment", "running_fault_environment", "stopped"]

FAULTS = "dev.faults.settings"
LOCKED_DRAIN = "from notifications.delivery.engine import engine_with_redis; engine_with_redis().deliver_due()"


class FaultEnvironment(ProjectEnvironment):
    """An environment with failpoints, proxies and, if asked for, a PostgreSQL of its own.

    Leases and locks last longer than any test: where one has to end, the test ends it.
    """

    marks: Path
    postgres: Postgres | None

    def reached(self, point: str) -> bool:
        """Tell whether a process came to a failpoint."""
        return (self.marks / point).exists()

    def wait_for_point(self, point: str) -> None:
        """Wait until a process comes to a failpoint."""
        wait_until(lambda: self.reached(point), f"{point} is reached")

    def release_point(self, point: str) -> None:
        """End a ``hold``."""
        (self.marks / point).write_text("go")

    def drain(self) -> None:
        """Deliver what is due in a process of its own, with locks, once."""
        self.run(LOCKED_DRAIN)

    def drain_with(self, **env: str) -> subprocess.CompletedProcess[str]:
        """Do the same with these changes to its environment; it may not come to its end."""
        return subprocess.run(
            [sys.executable, "-c", f"import django; django.setup()\n{LOCKED_DRAIN}"],
            cwd=ROOT, env=self.env | env, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def drain_until(self, statuses: dict[str, int], **env: str) -> None:
        """Drain again and again until the records are in these statuses."""

        def once() -> bool:
            self.drain_with(**env) if env else self.drain()
            return self.statuses() == statuses

        wait_until(once, lambda: f"{statuses}, not {self.statuses()}", 120)

    def start_drain(self, **env: str) -> subprocess.Popen[bytes]:
        """Start such a process; the environment's end kills it."""
        program = f"import django; django.setup()\n{LOCKED_DRAIN}"
        with (self.logs / f"drain-{uuid.uuid4().hex}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=self.env | env, stderr=log)
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        return process

    def start_driver(self, **env: str) -> Handle:
        """Start `manage.py deliver_due --forever`, the way to deliver without Celery and Redis."""
        self.processes.entries["driver"] = "python manage.py deliver_due --forever --interval 0.2"
        return self.start("driver", **env)

    def leases_run_out(self) -> None:
        """Let every lease end now, as if its time had passed."""
        self.rows("UPDATE notification_records SET next_attempt_at = now() WHERE status = 'sending'")

    def locks_run_out(self) -> None:
        """Let every lock end now, as if its time had passed."""
        with self.redis() as client:
            if names := [name for kind in ("claim", "lock") for name in client.scan_iter(f"smartmate:{kind}:*")]:
                client.delete(*names)

    def retries_are_due(self) -> None:
        """Let every backoff end now, as if its time had passed."""
        self.rows("UPDATE notification_records SET next_attempt_at = now() WHERE status = 'failed'")

    def redis(self) -> redis.Redis:
        """Return a client of the environment's Valkey."""
        return redis.Redis.from_url(self.valkey.url)

    def proxy(self, variable: str) -> tuple[Proxy, dict[str, str]]:
        """Put a proxy before the server of REDIS_URL or DATABASE_URL; return it, and the variable that leads to it."""
        url = self.env[variable]
        proxy = self.stack.enter_context(Proxy(int(url.rpartition(":")[2].partition("/")[0])))
        return proxy, {variable: proxy.url(url)}

    def send_event(self, event: dict[str, Any]) -> None:
        """Send an event as another Celery app does."""
        app = other_app(self.valkey.url)
        app.send_task("notification.feishu.requested", args=[event], queue="notifications")

    def attempts(self, *columns: str) -> list[tuple[Any, ...]]:
        """Return columns of every attempt, in the order of records and attempts."""
        return self.rows(
            f"SELECT {', '.join(columns)} FROM notification_delivery_attempts ORDER BY record_id, round, number"
        )

    def assert_promise(self) -> None:
        """Check what must hold when all is over, whatever happened (I1 to I6 of the fault plan).

        Every record is final, each sent one reached the endpoint, none more often than its attempts explain, none has
        more attempts than allowed, nothing is in a worker's hands, and no secret is anywhere.
        """
        records = self.rows("SELECT id, status, attempt_count, max_attempts FROM notification_records")
        taken = self.sends()
        assert {status for _id, status, _made, _allowed in records} <= {"sent", "dead", "skipped"}
        assert [record for record, status, _made, _allowed in records if status == "sent" and record not in taken] == []
        assert [record for record, _status, made, allowed in records if made > allowed] == []
        unclear = dict(
            self.rows(
                "SELECT record_id, count(*) FROM notification_delivery_attempts"
                " WHERE outcome = 'lost' OR error_code IN ('provider_timeout', 'network_error') GROUP BY 1"
            )
        )
        assert {r: n for r, n in taken.items() if n > 1 + unclear.get(r, 0)} == {}
        assert self.where_secrets_are() == []

    def where_secrets_are(self) -> list[str]:
        """Return the places where an endpoint's key can be read."""
        keys = [f"user{number:028d}" for number in range(1, self._users + 1)]
        tables = ["notification_records", "notification_delivery_attempts", "notification_rejected_requests"]
        texts = {f"table {name}": str(self.rows(f"SELECT t::text FROM {name} t")) for name in tables}
        texts["channels"] = str(self.rows("SELECT webhook_url, bearer_token FROM user_notification_channels"))
        texts |= {f"log {path.name}": path.read_text(errors="replace") for path in self.logs.glob("*.log")}
        if self.valkey.running:
            with self.redis() as client:
                texts["redis"] = str([client.dump(key) for key in client.scan_iter()])
        return [place for place, text in texts.items() if any(key in text for key in keys)]


@contextlib.contextmanager
def running_fault_environment(folder: Path, *, own_postgres: bool = False, **env: str) -> Iterator[FaultEnvironment]:
    """Start an environment whose processes read FAULTS and CONTROL.

    folder: for logs and marks. own_postgres: give it a server that the test may stop. env: for all its processes.
    """
    with contextlib.ExitStack() as servers:
        postgres = None
        if own_postgres:
            postgres = Postgres(servers.enter_context(private_directory()))
            servers.callback(postgres.kill)
            postgres.start()
        marks = folder / "marks"
        marks.mkdir()
        bounds = {"DJANGO_SETTINGS_MODULE": FAULTS, "FAULT_MARKS": str(marks), "NOTIFICATIONS_LEASE": "300"}
        with running_environment(folder, FaultEnvironment, postgres=postgres, **(bounds | env)) as environment:
            environment.marks, environment.postgres = marks, postgres
            yield environment


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Have a process stand still (SIGSTOP) while the block runs."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
