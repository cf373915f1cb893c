"""One judgement of health: each condition is seen by /readyz, alerts, the doctor and the overview alike."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from celery import current_app
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.utils import timezone

from notifications.models import Alert, Heartbeat, RejectedRequest, UserNotificationChannel
from notifications.monitoring import conditions
from notifications.monitoring.alerting import dispatcher
from notifications.monitoring.condition_texts import ConditionText, describe_condition
from notifications.monitoring.conditions import ConditionName, Severity, evaluate_conditions
from notifications.monitoring.indicators import Indicators, redis_is_broker
from notifications.states import HeartbeatKind, Status
from notifications.telemetry import heartbeats
from tests.support.factories import make_record

pytestmark = pytest.mark.django_db

NOWHERE = "redis://127.0.0.1:1/0"


class Site:
    """What the steps that cause a condition may change."""

    def __init__(self, change: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
        self.change = change
        self.monkeypatch = monkeypatch


def stop_postgresql(site: Site) -> None:
    def refuse(indicators: Indicators) -> None:
        raise OperationalError

    severity, _find = conditions._CHECKS[ConditionName.POSTGRESQL_AWAY]
    site.monkeypatch.setitem(conditions._CHECKS, ConditionName.POSTGRESQL_AWAY, (severity, refuse))


def revert_a_migration(site: Site) -> None:
    conditions._migrated.clear()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'notifications' AND name >= '0003'")


def stop_redis(site: Site) -> None:
    site.change(REDIS_URL=NOWHERE)


def stop_redis_that_is_the_broker(site: Site) -> None:
    site.change(REDIS_URL=NOWHERE)
    site.monkeypatch.setattr("notifications.monitoring.conditions.redis_is_broker", lambda: True)


def age_heartbeat(kind: HeartbeatKind, seconds: float) -> None:
    Heartbeat.objects.filter(kind=kind).update(seen_at=timezone.now() - timedelta(seconds=seconds))


def pause_a_channel(site: Site) -> None:
    user = User.objects.create(username="paused")
    UserNotificationChannel.objects.create(user=user, paused_at=timezone.now(), channel="feishu")


class Case(NamedTuple):
    """A condition, how to cause it, and what it is judged to be."""

    name: ConditionName
    cause: Callable[[Site], object]
    severity: Severity
    status: int
    """Of /readyz."""
    alert: str
    """Cause of the alert; empty: it cannot be stored."""


CASES = {
    "PostgreSQL away": Case(ConditionName.POSTGRESQL_AWAY, stop_postgresql, Severity.CRITICAL, 503, ""),
    "migrations pending": Case(
        ConditionName.MIGRATIONS_PENDING, revert_a_migration, Severity.CRITICAL, 503, "migrations"
    ),
    "Redis away": Case(ConditionName.REDIS_AWAY, stop_redis, Severity.WARNING, 200, "redis"),
    "broker away": Case(ConditionName.REDIS_AWAY, stop_redis_that_is_the_broker, Severity.CRITICAL, 200, "redis"),
    "sweep missing": Case(
        ConditionName.SWEEP_MISSING,
        lambda site: age_heartbeat(HeartbeatKind.SWEEP, 2 * 60 + 60 + 5),
        Severity.CRITICAL,
        503,
        "sweep",
    ),
    "overdue": Case(
        ConditionName.OVERDUE,
        lambda site: make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(seconds=305)),
        Severity.CRITICAL,
        503,
        "late",
    ),
    "no worker": Case(
        ConditionName.NO_WORKER,
        lambda site: age_heartbeat(HeartbeatKind.WORKER, 65),
        Severity.WARNING,
        200,
        "workers",
    ),
    "beat silent": Case(
        ConditionName.BEAT_SILENT,
        lambda site: age_heartbeat(HeartbeatKind.BEAT, 2 * 60 + 60 + 5),
        Severity.WARNING,
        200,
        "beat",
    ),
    "dead": Case(
        ConditionName.DEAD, lambda site: make_record(Status.DEAD), Severity.WARNING, 200, "dead:feishu:provider_config"
    ),
    "channels paused": Case(ConditionName.CHANNELS_PAUSED, pause_a_channel, Severity.WARNING, 200, "paused:feishu"),
    "requests rejected": Case(
        ConditionName.REQUESTS_REJECTED,
        lambda site: RejectedRequest.objects.create(source="here", payload="{}", errors=[]),
        Severity.WARNING,
        200,
        "rejected",
    ),
}


@pytest.fixture
def site(change: Callable[..., None], monkeypatch: pytest.MonkeyPatch, settings: Any) -> Site:
    """A site without any condition."""
    settings.HTTPS = True
    change(ALERT_EMAILS=["ops@example.com"], SANDBOX_ORIGINS=[])
    for kind in HeartbeatKind:
        heartbeats.write_heartbeat(kind)
    assert evaluate_conditions(Indicators()) == []
    return Site(change, monkeypatch)


def doctor_states(name: ConditionName) -> set[str]:
    """Return the states of the doctor's results with this name."""
    out = io.StringIO()
    with suppress(CommandError):
        call_command("notifications_doctor", "--json", stdout=out)
    return {result["state"] for result in json.loads(out.getvalue()) if result["name"] == name}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_condition_is_seen_by_all_four_presenters(
    case: Case, site: Site, admin_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    case.cause(site)

    [condition] = evaluate_conditions(Indicators())
    assert (condition.name, condition.severity) == (case.name, case.severity)

    readyz = admin_client.get("/readyz")
    assert readyz.status_code == case.status
    assert readyz.json()["parts"][case.name]["severity"] == case.severity
    assert readyz.json()["parts"][case.name]["reason"]

    assert doctor_states(case.name) >= {"error" if case.severity == Severity.CRITICAL else "warning"}

    [problem] = admin_client.get("/admin/notifications/").context["overview"].problems
    assert problem.severity == case.severity

    dispatcher._last_evaluation.clear()
    dispatcher.evaluate_if_due()
    alerts = {(alert.cause, alert.details["severity"]) for alert in Alert.objects.filter(sent_at__isnull=False)}
    if case.alert:
        assert alerts == {(case.alert, case.severity)}
    else:
        assert "alerts not evaluated: PostgresqlAway" in caplog.text


def test_each_condition_has_a_case() -> None:
    assert {case.name for case in CASES.values()} == set(ConditionName)


def test_nothing_just_below_a_limit_is_a_condition(site: Site) -> None:
    age_heartbeat(HeartbeatKind.SWEEP, 2 * 60 + 60 - 20)
    age_heartbeat(HeartbeatKind.BEAT, 2 * 60 + 60 - 20)
    age_heartbeat(HeartbeatKind.WORKER, 60 - 20)
    make_record(Status.PENDING, next_attempt_at=timezone.now() - timedelta(seconds=300 - 20))
    make_record(Status.DEAD, updated_at=timezone.now() - timedelta(hours=25))

    assert evaluate_conditions(Indicators()) == []


def test_the_effects_of_a_condition_are_covered_by_it(site: Site) -> None:
    for kind in HeartbeatKind:
        age_heartbeat(kind, 600)

    covered = {condition.name: condition.covered_by for condition in evaluate_conditions(Indicators())}

    assert covered == {
        ConditionName.SWEEP_MISSING: None,
        ConditionName.NO_WORKER: ConditionName.SWEEP_MISSING,
        ConditionName.BEAT_SILENT: ConditionName.SWEEP_MISSING,
    }

    stop_redis_that_is_the_broker(site)
    covered = {condition.name: condition.covered_by for condition in evaluate_conditions(Indicators())}

    assert covered.pop(ConditionName.REDIS_AWAY) is None
    assert set(covered.values()) == {ConditionName.REDIS_AWAY}


def test_the_text_of_a_missing_sweep_names_its_cause(site: Site) -> None:
    def describe() -> ConditionText:
        [condition] = evaluate_conditions(Indicators(), [ConditionName.SWEEP_MISSING])
        return describe_condition(condition)

    age_heartbeat(HeartbeatKind.SWEEP, 600)
    assert describe() == (
        "Retries and scheduled notifications wait: the last sweep finished 10 min ago.",
        "Beat and workers run, but no sweep finishes. Read the logs of the workers.",
    )

    age_heartbeat(HeartbeatKind.BEAT, 600)
    assert describe().title.startswith("Retries and scheduled notifications wait: beat is silent.")
    assert describe().action.startswith("Start beat.")

    age_heartbeat(HeartbeatKind.WORKER, 600)
    assert describe().title.startswith("Nothing is sent: no worker is running.")
    assert describe().action.startswith("Start the workers.")

    Heartbeat.objects.all().delete()
    assert describe() == ("No sweep has ever finished.", "Start beat and a worker.")


def test_the_broker_is_recognised_by_host_and_port(change: Callable[..., None]) -> None:
    broker = current_app.connection_for_write()
    for host, port, same in ((broker.hostname, broker.port, True), ("192.0.2.1", broker.port, False)):
        change(REDIS_URL=f"redis://:secret@{host}:{port}/7")

        assert redis_is_broker() is same, host


def test_a_failed_query_of_any_condition_means_postgresql_is_away(site: Site) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE notification_rejected_requests RENAME TO elsewhere")
        [condition] = evaluate_conditions(Indicators())
        transaction.set_rollback(True)

    assert (condition.name, condition.details) == (ConditionName.POSTGRESQL_AWAY, {"error": "ProgrammingError"})
