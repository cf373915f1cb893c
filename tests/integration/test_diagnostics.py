"""The doctor finds each problem, says what to do, and fails for those that are errors."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from notifications.models import UserNotificationChannel
from notifications.monitoring.diagnostics import redis_and_broker
from notifications.monitoring.diagnostics.redis_and_broker import LONG_QUEUE_MESSAGES
from notifications.states import HeartbeatKind
from notifications.telemetry import heartbeats
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db

WEBHOOK = "https://www.feishu.cn/flow/api/trigger-webhook/canary0123456789"


@pytest.fixture(autouse=True)
def _healthy_site(change: Callable[..., None], settings: Any, redis_client: redis.Redis) -> None:
    """A site without problems, as far as a test can be one."""
    redis_client.delete("notifications", "deliver")  # what other tests have asked workers for
    change(ALERT_EMAILS=["ops@example.com"], SANDBOX_ORIGINS=[])
    settings.HTTPS = True
    for kind in HeartbeatKind:
        heartbeats.write_heartbeat(kind)


def run_doctor() -> dict[str, list[dict[str, str]]]:
    """Return the results of the command by name. The command must fail exactly when a result is an error."""
    out = io.StringIO()
    failed = False
    try:
        call_command("notifications_doctor", "--json", stdout=out)
    except CommandError:
        failed = True
    results: dict[str, list[dict[str, str]]] = {}
    for result in json.loads(out.getvalue()):
        assert bool(result["remedy"]) == (result["state"] != "ok"), result
        results.setdefault(result["name"], []).append(result)
    assert failed == any(result["state"] == "error" for group in results.values() for result in group)
    return results


def worst_state(name: str) -> str:
    """Return the worst state of the results with a name."""
    return max((result["state"] for result in run_doctor()[name]), key=["ok", "warning", "error"].index)


def test_a_healthy_site_has_no_error() -> None:
    results = run_doctor()

    assert {name for name, group in results.items() if group[0]["state"] == "error"} == set()
    assert list(results) == [
        "settings", "database", "keys", "nudges", "migrations", "sweep", "due", "workers", "beat", "dead", "paused",
        "rejected", "redis", "broker", "alerts",
    ]  # fmt: skip


def test_the_text_output_has_each_problem_with_its_remedy(change: Callable[..., None]) -> None:
    change(LEASE=10)
    out = io.StringIO()

    with pytest.raises(CommandError, match="1 problem found"):
        call_command("notifications_doctor", stdout=out)

    assert "PROBLEM  settings: Three quarters of LEASE must be longer than TOTAL_TIMEOUT" in out.getvalue()
    assert "\n      -> See docs/settings.md." in out.getvalue()


def test_a_sandbox_in_production_is_an_error(change: Callable[..., None]) -> None:
    change(SANDBOX_ORIGINS=["http://127.0.0.1:9000"])

    assert worst_state("settings") == "error"


def test_different_clocks_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr("notifications.monitoring.diagnostics.database.time.time", lambda: real() + 90)

    assert worst_state("database") == "warning"
    assert (
        "differ by 90." in run_doctor()["database"][0]["text"] or "differ by 89." in run_doctor()["database"][0]["text"]
    )


def test_channels_that_no_key_decrypts_are_named(make_user: Callable[..., User], change: Callable[..., None]) -> None:
    user = make_user(webhook_url=WEBHOOK)
    assert worst_state("keys") == "ok"

    change(ENCRYPTION_KEYS=[Fernet.generate_key().decode()])

    [result] = run_doctor()["keys"]
    channel = UserNotificationChannel.objects.get(user=user)
    assert (result["state"], result["text"]) == ("error", f"1 channel cannot be decrypted: {channel.pk}")


def test_a_redis_that_may_evict_keys_is_an_error(redis_client: redis.Redis) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert worst_state("redis") == "error"
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert worst_state("redis") != "error"


def test_an_unreachable_redis_is_reported_without_its_password(change: Callable[..., None]) -> None:
    change(REDIS_URL="redis://:canary@127.0.0.1:1/0")

    results = run_doctor()

    assert results["redis"][0]["state"] == "warning"
    assert "canary" not in json.dumps(results)


def test_a_long_queue_is_an_error(redis_client: redis.Redis) -> None:
    redis_client.rpush("notifications", *(["x"] * LONG_QUEUE_MESSAGES))
    try:
        texts = {result["text"]: result["state"] for result in run_doctor()["broker"]}
    finally:
        redis_client.delete("notifications")

    assert texts["1000 messages wait in the queue notifications."] == "error"
    assert texts["0 messages wait in the queue deliver."] == "ok"


def test_no_alert_receiver_is_a_warning(change: Callable[..., None]) -> None:
    change(ALERT_EMAILS=[])

    assert worst_state("alerts") == "warning"


@pytest.mark.processes
def test_an_unreachable_postgresql_is_reported_without_a_traceback() -> None:
    env = os.environ | {"DATABASE_URL": "postgres://me:canary@127.0.0.1:1/none"}

    done = subprocess.run(
        [sys.executable, "manage.py", "notifications_doctor"], cwd=ROOT, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "PROBLEM  database: PostgreSQL does not answer (OperationalError).\n      -> Start PostgreSQL" in done.stdout
    assert "redis: " in done.stdout
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stdout + done.stderr


class TestNudges:
    def test_the_way_in_use_is_named(
        self, change: Callable[..., None], redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def text() -> str:
            [result] = run_doctor()["nudges"]
            assert result["state"] == "ok"
            return result["text"]

        assert text() == "No worker listens: workers are woken by messages of Celery."
        redis_client.set("smartmate:listeners", "1", ex=60)
        assert text() == "Workers are woken through Redis."
        monkeypatch.setattr(redis_and_broker, "count_notify_listeners", lambda: 2)
        assert text() == "2 workers listen for notifications of PostgreSQL."
        change(NUDGE="none")
        assert text() == "NUDGE is none: new notifications wait for the sweep."

    def test_nobody_who_listens_is_a_warning_if_there_is_no_other_way(self, change: Callable[..., None]) -> None:
        for way in ("notify", "redis"):
            change(NUDGE=way)

            [result] = run_doctor()["nudges"]

            assert (result["state"], result["text"]) == (
                "warning",
                "No worker listens: new notifications wait for the sweep.",
            )
