"""What machines ask: alive, ready, and how much of everything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from notifications.models import Heartbeat
from notifications.monitoring import readiness
from notifications.states import HeartbeatKind, Status
from notifications.telemetry import heartbeats
from tests.support.factories import make_record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def beating(db: None) -> None:
    """Beat and sweep were heard of just now."""
    for pulse in (HeartbeatKind.BEAT, HeartbeatKind.SWEEP):
        heartbeats.write_heartbeat(pulse)


def ready(client: Client, query: str = "") -> tuple[int, dict[str, Any]]:
    """Return status and parts of /readyz."""
    answer = client.get(f"/readyz{query}")
    return answer.status_code, answer.json()["parts"]


def test_alive_is_said_without_a_look_at_anything(client: Client) -> None:
    answer = client.get("/healthz")  # a test without the mark for databases may not touch one

    assert (answer.status_code, answer.json()) == (200, {"alive": True})
    assert answer["Cache-Control"] == "no-store"


def test_probes_come_by_any_host_and_by_plain_http(client: Client, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True

    assert client.get("/healthz", headers={"host": "10.1.2.3:8000"}).status_code == 200
    assert client.get("/admin/", headers={"host": "testserver"}).status_code == 301


def test_probes_are_only_read(client: Client) -> None:
    assert client.post("/readyz").status_code == 405


def test_ready_when_every_part_works(client: Client, beating: None) -> None:
    status, parts = ready(client)

    assert status == 200
    assert {name: part["state"] for name, part in parts.items()} == dict.fromkeys(readiness.PARTS, "ok")


def test_redis_away_is_degraded_and_still_ready(client: Client, beating: None, change: Callable[..., None]) -> None:
    change(REDIS_URL="redis://127.0.0.1:1/0")

    status, parts = ready(client)

    assert (status, parts["redis"]["state"]) == (200, "degraded")


def test_without_a_sweep_it_is_not_ready_and_says_what_to_start(client: Client, db: None) -> None:
    status, parts = ready(client)

    assert status == 503
    assert parts["sweep"] == {"state": "failed", "reason": "no sweep was ever seen: start beat and a worker"}


def test_a_missed_sweep_is_told_from_a_late_one(client: Client, beating: None) -> None:
    for ago, status in ((100, 200), (200, 503)):
        Heartbeat.objects.update(seen_at=timezone.now() - timedelta(seconds=ago))

        assert ready(client)[0] == status

    reason = ready(client)[1]["sweep"]["reason"]
    assert re.match(r"the last sweep ended 2\d\d s ago, beat was heard of 2\d\d s ago", reason)


def test_a_record_that_is_due_for_too_long_is_not_ready(client: Client, beating: None) -> None:
    record = make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(seconds=200))
    assert ready(client)[0] == 200

    type(record).objects.update(next_attempt_at=timezone.now() - timedelta(seconds=400))

    assert re.fullmatch(r"a notification has been due for 4\d\d s, more than 300 s", ready(client)[1]["due"]["reason"])


def test_a_part_can_be_left_out(client: Client, db: None) -> None:
    status, parts = ready(client, "?exclude=sweep&exclude=due")

    assert (status, list(parts)) == (200, ["database", "migrations", "redis"])


def test_an_unknown_part_cannot_be_left_out(client: Client) -> None:
    answer = client.get("/readyz?exclude=swep")

    assert answer.status_code == 400
    assert "swep" in answer.json()["exclude"]


def test_a_migration_that_is_not_applied_is_named(client: Client, beating: None) -> None:
    readiness._MIGRATED.clear()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'notifications' AND name <> '0001_initial'")

    status, parts = ready(client)

    assert status == 503
    assert re.match(r"not applied: notifications\.0002_\w+", parts["migrations"]["reason"])


def test_with_postgresql_away_it_is_alive_and_not_ready() -> None:
    program = (
        "import django, json; django.setup()\n"
        "from django.test import Client\n"
        "answers = {path: Client().get(path) for path in ('/healthz', '/readyz', '/metrics')}\n"
        "print(json.dumps([[a.status_code for a in answers.values()], answers['/readyz'].json()]))"
    )
    env = os.environ | {
        "DATABASE_URL": "postgres://me:canary@127.0.0.1:1/none",
        "DJANGO_SETTINGS_MODULE": "smartmate.settings",
    }

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )

    statuses, found = json.loads(done.stdout)
    assert statuses == [200, 503, 503]
    assert found["parts"]["database"]["reason"] == "the database does not answer (OperationalError)"
    assert {name: part["state"] for name, part in found["parts"].items()} == dict.fromkeys(
        readiness.PARTS, "failed"
    ) | {"redis": "ok"}
    assert "canary" not in done.stdout + done.stderr


def test_metrics_need_the_token_where_one_is_set(client: Client, db: None, change: Callable[..., None]) -> None:
    assert client.get("/metrics").status_code == 200
    change(METRICS_TOKEN="t0ken-密")

    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "t0ken-密"}):
        assert client.get("/metrics", headers=header).status_code == 401

    assert client.get("/metrics", headers={"Authorization": "Bearer t0ken-密"}).status_code == 200
