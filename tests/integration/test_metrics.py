"""What /metrics says is what the tables hold, whichever process wrote it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from notifications.models import Counter, RejectedRequest, UserNotificationChannel
from notifications.monitoring import indicators as vitals
from notifications.monitoring.prometheus import NAMES, exposition
from notifications.states import HeartbeatKind, Measure, Status
from notifications.telemetry import heartbeats
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS
from tests.integration.test_query_plan import fill
from tests.support.factories import make_record

pytestmark = pytest.mark.django_db


def scrape() -> dict[str, float]:
    """Return every sample as Prometheus would read it, by name and labels."""
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition().decode())
        for sample in family.samples
    }


def tally(count: int, **fields: Any) -> None:
    """Store a tally."""
    defaults = {
        "measure": Measure.ATTEMPTS, "hour": datetime(2026, 5, 1, 8, tzinfo=UTC), "shard": 0, "channel": "feishu",
        "outcome": "success", "error_code": "", "attempts": 0, "bucket": 0, "seconds": 0.0,
    }  # fmt: skip
    Counter.objects.create(count=count, **(defaults | fields))


def test_counters_are_summed_over_shards_and_hours() -> None:
    tally(2, shard=1)
    tally(3, shard=15)
    tally(4, hour=datetime(1970, 1, 1, tzinfo=UTC))
    tally(5, outcome="temporary_fail", error_code="network_error")

    found = scrape()

    assert found["notifications_attempts_total,channel=feishu,error_code=,outcome=success"] == 9
    assert found["notifications_attempts_total,channel=feishu,error_code=network_error,outcome=temporary_fail"] == 5


def test_the_histogram_of_attempts_leaves_out_those_whose_time_nobody_knows() -> None:
    tally(2, bucket=0, seconds=0.006)
    tally(1, bucket=3, seconds=0.04, shard=7, outcome="permanent_fail")
    tally(1, bucket=len(BUCKET_BOUNDS_SECONDS), seconds=90000.0)
    tally(9, outcome="lost", error_code="lease_expired")

    found = scrape()

    at = "notifications_attempt_seconds_bucket,channel=feishu,le="
    assert [found[at + limit] for limit in ("0.005", "0.025", "0.05", "86400.0", "+Inf")] == [2, 2, 3, 3, 4]
    assert found["notifications_attempt_seconds_count,channel=feishu"] == 4
    assert found["notifications_attempt_seconds_sum,channel=feishu"] == pytest.approx(90000.046)


def test_deliveries_count_replays_and_their_histogram_does_not() -> None:
    tally(7, measure=Measure.DELIVERIES, outcome=Status.SENT, attempts=1, seconds=2.0)
    tally(1, measure=Measure.DELIVERIES, outcome=Status.DEAD, attempts=5, seconds=3600.0)
    tally(2, measure=Measure.REPLAYS, outcome=Status.SENT, attempts=1, seconds=99999.0)

    found = scrape()

    assert found["notifications_deliveries_total,channel=feishu,status=sent"] == 9
    assert found["notifications_deliveries_total,channel=feishu,status=dead"] == 1
    assert found["notifications_delivery_seconds_count,channel=feishu"] == 7
    assert found["notifications_delivery_seconds_sum,channel=feishu"] == 2.0


def test_gauges_show_what_the_tables_hold() -> None:
    long_due = timezone.now() - timedelta(seconds=100)
    make_record(Status.PENDING, next_attempt_at=long_due)
    make_record(Status.PENDING)
    make_record(Status.FAILED, last_error_code="network_error")
    make_record(Status.FAILED, last_error_code="network_error", next_attempt_at=long_due)
    make_record(Status.SENDING)
    make_record(Status.DEAD)
    UserNotificationChannel.objects.create(user_id=user(), paused_at=timezone.now())
    RejectedRequest.objects.create(source="here", payload="{}", errors=[])
    RejectedRequest.objects.create(source="here", payload="{}", errors=[], created_at=long_due - timedelta(hours=1))
    for pulse in HeartbeatKind:
        heartbeats.write_heartbeat(pulse)

    found = scrape()

    assert found["notifications_due,channel=feishu"] == 2
    assert found["notifications_in_flight,channel=feishu"] == 1
    assert found["notifications_waiting_for_retry,channel=feishu,error_code=network_error"] == 2
    assert 100 <= found["notifications_oldest_due_age_seconds"] < 160
    assert found["notifications_paused_channels,channel=feishu"] == 1
    assert found["notifications_rejected_last_hour"] == 1
    assert found["notifications_workers"] == 1
    assert 0 <= found["notifications_heartbeat_age_seconds,name=beat"] < 60
    assert 0 <= found["notifications_heartbeat_age_seconds,name=sweep"] < 60


def user() -> int:
    """Return the key of a new user."""
    from django.contrib.auth.models import User

    return int(User.objects.create_user("paused").pk)


def test_an_empty_database_gives_zeros_and_no_error() -> None:
    found = scrape()

    assert found["notifications_oldest_due_age_seconds"] == 0
    assert found["notifications_workers"] == 0


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (vitals._OLDEST, "notification_due"),
        (vitals._WAITING, "notification_due"),
        (vitals._REJECTED, "notification_rejected"),
        (vitals._PAUSED, "channel_paused"),
    ],
)
def test_each_look_at_a_large_table_is_a_look_at_an_index(statement: str, index: str) -> None:
    fill("done", "sent", 20_000)
    fill("due", "pending", 50)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO notification_rejected_requests (source, payload, errors, created_at)"
            " SELECT '', '', '[]', now() - n * interval '1 minute' FROM generate_series(1, 20000) AS n"
        )
        cursor.execute(
            "INSERT INTO auth_user (username, password, first_name, last_name, email, is_superuser, is_staff,"
            " is_active, date_joined) SELECT 'u' || n, '', '', '', '', false, false, true, now()"
            " FROM generate_series(1, 20000) AS n"
        )
        cursor.execute(
            "INSERT INTO user_notification_channels (user_id, channel, enabled, webhook_url, auth_type, bearer_token,"
            " pause_reason, last_test_status, last_test_error, updated_at, paused_at)"
            " SELECT id, 'feishu', true, '', 'none', '', '', '', '', now(), CASE WHEN id % 1000 = 0 THEN now() END"
            " FROM auth_user"
        )
        cursor.execute("ANALYZE notification_records, notification_rejected_requests, user_notification_channels")
        cursor.execute("EXPLAIN " + statement, {"counted": vitals.COUNTED} if "%(" in statement else None)
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert index in plan
    assert "Seq Scan" not in plan


def test_the_list_of_names_is_what_comes_out() -> None:
    families = text_string_to_metric_families(exposition().decode())

    assert {family.name + "_total" * (family.type == "counter") for family in families} == set(NAMES)
