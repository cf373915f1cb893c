"""The doctor finds what is wrong, says what to do, and fails."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from celery import current_app
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from notifications.models import Heartbeat, UserNotificationChannel
from notifications.monitoring.diagnostics.redis_and_broker import LONG_QUEUE
from notifications.states import HeartbeatKind, Status
from notifications.telemetry import heartbeats
from tests.integration.test_probes import ROOT
from tests.support.factories import make_record

pytestmark = pytest.mark.django_db

WEBHOOK = "https://www.feishu.cn/flow/api/trigger-webhook/canary0123456789"


@pytest.fixture(autouse=True)
def _well(change: Callable[..., None], settings: Any, redis_client: redis.Redis) -> None:
    """A site with nothing to complain of, as far as a test can be one."""
    redis_client.delete("notifications", "deliver")  # what other tests have asked workers for
    change(ALERT_EMAILS=["ops@example.com"], SANDBOX_ORIGINS=[])
    settings.HTTPS = True
    for pulse in HeartbeatKind:
        heartbeats.write_heartbeat(pulse)


def signs() -> dict[str, list[dict[str, str]]]:
    """Return what the command says, by name; it must fail exactly when something is wrong."""
    out = io.StringIO()
    failed = False
    try:
        call_command("notifications_doctor", "--json", stdout=out)
    except CommandError:
        failed = True
    found: dict[str, list[dict[str, str]]] = {}
    for sign in json.loads(out.getvalue()):
        assert bool(sign["remedy"]) == (sign["state"] != "ok")
        found.setdefault(sign["name"], []).append(sign)
    assert failed == any(sign["state"] == "error" for group in found.values() for sign in group)
    return found


def state(name: str) -> str:
    """Return the worst that is said of one thing."""
    return max((sign["state"] for sign in signs()[name]), key=["ok", "warning", "error"].index)


def test_a_site_that_is_well_has_nothing_wrong() -> None:
    found = signs()

    assert {name for name, group in found.items() if group[0]["state"] == "error"} == set()
    assert list(found) == [
        "settings", "database", "migrations", "sweep", "workers", "due", "keys", "redis", "broker", "alerts"
    ]  # fmt: skip


def test_it_speaks_to_people_too(change: Callable[..., None]) -> None:
    change(LEASE=10)
    out = io.StringIO()

    with pytest.raises(CommandError, match="wrong: 1"):
        call_command("notifications_doctor", stdout=out)

    assert "WRONG  settings: Three quarters of LEASE must be longer than TOTAL_TIMEOUT" in out.getvalue()
    assert "\n      -> See docs/settings.md." in out.getvalue()


def test_a_sandbox_in_production_is_wrong(change: Callable[..., None]) -> None:
    change(SANDBOX_ORIGINS=["http://127.0.0.1:9000"])

    assert state("settings") == "error"


def test_clocks_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("notifications.monitoring.diagnostics.database.time.time", lambda: real() + 90)

    assert state("database") == "warning"
    assert "differ by 90." in signs()["database"][0]["text"] or "differ by 89." in signs()["database"][0]["text"]


def test_a_migration_that_is_missing_is_wrong() -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'notifications'")

    assert state("migrations") == "error"


def test_without_a_sweep_the_remedy_depends_on_beat() -> None:
    Heartbeat.objects.filter(name="sweep").delete()
    [sign] = signs()["sweep"]
    assert (sign["state"], sign["text"]) == ("error", "there never was one")
    assert "look at the workers' logs" in sign["remedy"]

    Heartbeat.objects.filter(name="beat").update(seen_at=timezone.now() - timedelta(hours=1))

    assert "Start beat" in signs()["sweep"][0]["remedy"]


def test_no_worker_is_a_warning() -> None:
    Heartbeat.objects.filter(kind=HeartbeatKind.WORKER).delete()

    assert state("workers") == "warning"


def test_what_is_due_for_too_long_is_wrong() -> None:
    make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(hours=1))

    assert state("due") == "error"


def test_channels_no_key_reads_are_named(make_user: Callable[..., User], change: Callable[..., None]) -> None:
    user = make_user(webhook_url=WEBHOOK)
    assert state("keys") == "ok"

    change(ENCRYPTION_KEYS=[Fernet.generate_key().decode()])

    [sign] = signs()["keys"]
    channel = UserNotificationChannel.objects.get(user=user)
    assert (sign["state"], sign["text"]) == ("error", f"1 channel cannot be read: {channel.pk}")


def test_a_redis_that_may_forget_is_wrong(redis_client: redis.Redis) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert state("redis") == "error"
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert state("redis") != "error"


def test_a_redis_that_is_away_is_wrong(change: Callable[..., None]) -> None:
    change(REDIS_URL="redis://:canary@127.0.0.1:1/0")

    assert state("redis") == "error"
    assert "canary" not in json.dumps(signs())


def test_events_that_would_come_again_too_soon_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    options = current_app.conf.broker_transport_options
    monkeypatch.setitem(options, "visibility_timeout", 30)

    assert state("broker") == "error"
    assert "LOCK_WAIT and LEASE together, 65 s" in signs()["broker"][0]["remedy"]


def test_a_queue_that_nobody_takes_is_wrong(redis_client: redis.Redis) -> None:
    redis_client.rpush("notifications", *(["x"] * LONG_QUEUE))
    try:
        texts = {sign["text"]: sign["state"] for sign in signs()["broker"]}
    finally:
        redis_client.delete("notifications")

    assert texts["1000 messages wait in the queue notifications"] == "error"
    assert texts["0 messages wait in the queue deliver"] == "ok"


def test_nobody_to_tell_is_a_warning(change: Callable[..., None]) -> None:
    change(ALERT_EMAILS=[])

    assert state("alerts") == "warning"


def test_postgresql_away_is_one_finding_for_each_thing_and_no_traceback() -> None:
    env = os.environ | {"DATABASE_URL": "postgres://me:canary@127.0.0.1:1/none"}

    done = subprocess.run(
        [sys.executable, "manage.py", "notifications_doctor"], cwd=ROOT, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "WRONG  database: PostgreSQL failed: OperationalError\n      -> Is it running" in done.stdout
    assert "redis: " in done.stdout
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stdout + done.stderr
