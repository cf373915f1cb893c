"""The metrics are what the tables hold, whichever process wrote it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from notifications.conf import service_options
from notifications.models import NotificationEvent, RejectedRequest, UserNotificationChannel
from notifications.monitoring.indicators import MAX_ENDPOINTS, Indicators
from notifications.monitoring.prometheus import NAMES, exposition
from notifications.states import HeartbeatKind, Measure, Status
from notifications.telemetry import heartbeats, loop_lag
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS
from tests.support.counter_rows import make_counter
from tests.support.factories import make_record
from tests.support.query_plans import fill_table

pytestmark = pytest.mark.django_db


def scrape() -> dict[str, float]:
    """Return every sample as Prometheus would read it, by name and labels."""
    return {
        sample.name + "".join(f",{key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition().decode())
        for sample in family.samples
    }


def test_counters_are_summed_over_shards_and_hours() -> None:
    make_counter(Measure.ATTEMPTS, 2, shard=1)
    make_counter(Measure.ATTEMPTS, 3, shard=15)
    make_counter(Measure.ATTEMPTS, 4, hour=datetime(1970, 1, 1, tzinfo=UTC))
    make_counter(Measure.ATTEMPTS, 5, outcome="temporary_fail", error_code="network_error")

    samples = scrape()

    assert samples["notifications_attempts_total,channel=feishu,error_code=,outcome=success"] == 9
    assert samples["notifications_attempts_total,channel=feishu,error_code=network_error,outcome=temporary_fail"] == 5


def test_the_histogram_of_attempts_excludes_lost_attempts() -> None:
    make_counter(Measure.ATTEMPTS, 2, bucket=0, seconds=0.006)
    make_counter(Measure.ATTEMPTS, 1, bucket=3, seconds=0.04, shard=7, outcome="permanent_fail")
    make_counter(Measure.ATTEMPTS, 1, bucket=len(BUCKET_BOUNDS_SECONDS), seconds=90000.0)
    make_counter(Measure.ATTEMPTS, 9, outcome="lost", error_code="lease_expired")

    samples = scrape()

    at = "notifications_attempt_seconds_bucket,channel=feishu,le="
    assert [samples[at + limit] for limit in ("0.005", "0.025", "0.05", "86400.0", "+Inf")] == [2, 2, 3, 3, 4]
    assert samples["notifications_attempt_seconds_count,channel=feishu"] == 4
    assert samples["notifications_attempt_seconds_sum,channel=feishu"] == pytest.approx(90000.046)


def test_replays_count_as_deliveries_but_not_in_their_histogram() -> None:
    make_counter(Measure.DELIVERIES, 7, outcome=Status.SENT, attempts=1, seconds=2.0)
    make_counter(Measure.DELIVERIES, 1, outcome=Status.DEAD, attempts=5, seconds=3600.0)
    make_counter(Measure.REPLAYS, 2, outcome=Status.SENT, attempts=1, seconds=99999.0)

    samples = scrape()

    assert samples["notifications_deliveries_total,channel=feishu,status=sent"] == 9
    assert samples["notifications_deliveries_total,channel=feishu,status=dead"] == 1
    assert samples["notifications_delivery_seconds_count,channel=feishu"] == 7
    assert samples["notifications_delivery_seconds_sum,channel=feishu"] == 2.0


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
    for kind in HeartbeatKind:
        heartbeats.write_heartbeat(kind)

    samples = scrape()

    assert samples["notifications_due,channel=feishu"] == 2
    assert samples["notifications_in_flight,channel=feishu"] == 1
    assert samples["notifications_waiting_for_retry,channel=feishu,error_code=network_error"] == 2
    assert 100 <= samples["notifications_oldest_due_age_seconds"] < 160
    assert samples["notifications_paused_channels,channel=feishu"] == 1
    assert samples["notifications_rejected_last_hour"] == 1
    assert samples["notifications_workers"] == 1
    assert 0 <= samples["notifications_heartbeat_age_seconds,name=beat"] < 60
    assert 0 <= samples["notifications_heartbeat_age_seconds,name=sweep"] < 60


def test_the_endpoints_with_the_most_records_are_named_and_no_others() -> None:
    for number in range(MAX_ENDPOINTS + 1):
        make_record(Status.PENDING, user_id=5000 + number)
    make_record(Status.SENDING, user_id=5001)
    make_record(Status.FAILED, user_id=5001)

    samples = scrape()

    endpoints = {name for name in samples if name.startswith("notifications_endpoint_waiting,")}
    assert len(endpoints) == MAX_ENDPOINTS
    assert samples["notifications_endpoint_waiting,channel=feishu,endpoint=,user=5001"] == 2
    assert samples["notifications_endpoint_in_flight,channel=feishu,endpoint=,user=5001"] == 1


def test_signals_that_wait_and_those_that_were_given_up_are_counted() -> None:
    for next_attempt_at in (timezone.now(), timezone.now(), None):
        NotificationEvent.objects.create(
            record=make_record(), name="died", payload={}, occurred_at=timezone.now(), next_attempt_at=next_attempt_at
        )

    samples = scrape()

    assert samples["notifications_signals,state=waiting"] == 2
    assert samples["notifications_signals,state=given_up"] == 1


def test_the_lag_of_the_loop_is_the_largest_of_the_workers_since_their_last_heartbeat() -> None:
    loop_lag.take_largest_lag()
    for seconds in (0.2, 0.7, 0.1):
        loop_lag.note_lag(seconds)
    heartbeats.write_heartbeat(HeartbeatKind.WORKER)
    assert scrape()["notifications_loop_lag_seconds"] == 0.7

    heartbeats.write_heartbeat(HeartbeatKind.WORKER)
    assert "notifications_loop_lag_seconds" not in scrape()


def user() -> int:
    """Return the key of a new user."""
    from django.contrib.auth.models import User

    return int(User.objects.create_user("paused").pk)


def test_an_empty_database_gives_zeros_and_no_error() -> None:
    samples = scrape()

    assert samples["notifications_oldest_due_age_seconds"] == 0
    assert samples["notifications_workers"] == 0
    for channel in service_options().providers:  # Prometheus sees no increase in a counter that begins with 1
        for status in ("sent", "dead", "skipped"):
            assert samples[f"notifications_deliveries_total,channel={channel},status={status}"] == 0
        for name in ("due", "in_flight", "paused_channels"):
            assert samples[f"notifications_{name},channel={channel}"] == 0


INDEXES = {
    "oldest_due_age": "notification_due",
    "unfinished": "notification_due",
    "dead": "notification_(dead|undelivered)",  # both have dead records in this order
    "rejected": "notification_rejected",
    "paused": "channel_paused",
}


def test_each_indicator_of_a_large_table_is_read_by_its_index() -> None:
    fill_table("done", "sent", 20_000)
    fill_table("due", "pending", 50)
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
        cursor.execute("REINDEX TABLE notification_records")  # other tests leave entries of rows that are gone
        cursor.execute("ANALYZE notification_records, notification_rejected_requests, user_notification_channels")

    for name, index in INDEXES.items():
        with CaptureQueriesContext(connection) as captured:
            getattr(Indicators(), name)
        [query] = [query["sql"] for query in captured.captured_queries]
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN " + query)
            plan = "\n".join(row[0] for row in cursor.fetchall())
        assert re.search(index, plan), name
        assert "Seq Scan" not in plan, name


def test_names_lists_every_metric() -> None:
    families = text_string_to_metric_families(exposition().decode())

    assert {family.name + "_total" * (family.type == "counter") for family in families} == set(NAMES)
