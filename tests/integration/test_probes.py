"""/healthz, /readyz and /metrics, which machines call."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone, translation

from notifications.models import Heartbeat
from notifications.monitoring import conditions
from notifications.monitoring.readiness import PARTS
from notifications.states import HeartbeatKind, Status
from notifications.telemetry import heartbeats
from tests.support.factories import make_record
from tests.support.paths import ROOT


@pytest.fixture
def beating(db: None) -> None:
    """Beat, sweep and a worker have just written a heartbeat."""
    for kind in HeartbeatKind:
        heartbeats.write_heartbeat(kind)


def get_parts(client: Client, query: str = "") -> tuple[int, dict[str, Any]]:
    """Return status and parts of /readyz."""
    answer = client.get(f"/readyz{query}")
    return answer.status_code, answer.json()["parts"]


def test_healthz_checks_nothing_else(client: Client) -> None:
    answer = client.get("/healthz")  # a test without the mark for databases may not touch one

    assert (answer.status_code, answer.json()) == (200, {"alive": True})
    assert answer["Cache-Control"] == "no-store"


def test_probes_accept_any_host_and_plain_http(client: Client, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True

    assert client.get("/healthz", headers={"host": "10.1.2.3:8000"}).status_code == 200
    assert client.get("/admin/", headers={"host": "testserver"}).status_code == 301


def test_probes_refuse_other_methods(client: Client) -> None:
    assert client.post("/readyz").status_code == 405


def test_readyz_is_200_when_every_part_works(client: Client, beating: None) -> None:
    status, parts = get_parts(client)

    assert status == 200
    assert {name: part["state"] for name, part in parts.items()} == dict.fromkeys(PARTS, "ok")


def test_redis_away_is_degraded_and_still_ready(client: Client, beating: None, change: Callable[..., None]) -> None:
    change(REDIS_URL="redis://127.0.0.1:1/0")

    status, parts = get_parts(client)

    assert (status, parts["redis"]["state"]) == (200, "degraded")


def test_readyz_is_503_without_a_sweep(client: Client, db: None) -> None:
    status, parts = get_parts(client)

    assert status == 503
    assert parts["sweep"] == {
        "state": "failed",
        "reason": "No sweep has ever finished.",
        "severity": "critical",
    }


def test_a_sweep_is_missing_after_its_limit(client: Client, beating: None) -> None:
    for age, status in ((100, 200), (200, 503)):
        Heartbeat.objects.exclude(kind=HeartbeatKind.WORKER).update(seen_at=timezone.now() - timedelta(seconds=age))

        assert get_parts(client)[0] == status

    reason = get_parts(client)[1]["sweep"]["reason"]
    assert reason.startswith("Retries and scheduled notifications wait: beat is silent. The last sweep finished 3 min")


def test_readyz_is_503_when_a_record_is_overdue(client: Client, beating: None) -> None:
    record = make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(seconds=200))
    assert get_parts(client)[0] == 200

    type(record).objects.update(next_attempt_at=timezone.now() - timedelta(seconds=400))

    assert get_parts(client)[1]["due"]["reason"] == "A notification has been due for 7 min; the limit is 5 min."


def test_excluded_parts_are_left_out(client: Client, db: None) -> None:
    status, parts = get_parts(client, "?exclude=sweep&exclude=due")

    assert (status, [name for name in PARTS if name not in parts]) == (200, ["sweep", "due"])


def test_an_unknown_excluded_part_is_refused(client: Client) -> None:
    answer = client.get("/readyz?exclude=swep")

    assert answer.status_code == 400
    assert "swep" in answer.json()["exclude"]


def test_readyz_names_a_pending_migration(client: Client, beating: None) -> None:
    conditions._migrated.clear()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'notifications' AND name <> '0001_initial'")

    status, parts = get_parts(client)

    assert status == 503
    assert re.match(r"Migrations are not applied: notifications\.0002_\w+", parts["migrations"]["reason"])


@pytest.mark.processes
def test_without_postgresql_healthz_is_200_and_readyz_503() -> None:
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

    statuses, body = json.loads(done.stdout)
    assert statuses == [200, 503, 503]
    parts = body["parts"]
    assert parts["database"]["reason"] == "PostgreSQL does not answer (OperationalError)."
    failed = ("database", "migrations", "sweep", "due")
    assert {name: part["state"] for name, part in parts.items()} == {
        name: "ok" if name == "redis" else "failed" if name in failed else "degraded" for name in PARTS
    }
    assert "canary" not in done.stdout + done.stderr


def test_metrics_need_the_token_where_one_is_set(client: Client, db: None, change: Callable[..., None]) -> None:
    assert client.get("/metrics").status_code == 200
    change(METRICS_TOKEN="t0ken-密")

    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "t0ken-密"}):
        assert client.get("/metrics", headers=header).status_code == 401

    assert client.get("/metrics", headers={"Authorization": "Bearer t0ken-密"}).status_code == 200


@pytest.mark.django_db
def test_probe_answers_in_the_language_of_the_project_whatever_the_thread_served_before(client: Client) -> None:
    expected = client.get("/readyz").json()["parts"]
    with translation.override("zh-hans"):
        assert client.get("/readyz").json()["parts"].keys() == expected.keys()
        assert client.get("/readyz").content.isascii()
