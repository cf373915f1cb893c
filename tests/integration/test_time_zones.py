"""The main paths in any time zone: charts, times from callers, and dates from endpoints."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone as fixed_offset
from email.utils import formatdate
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.db.models.functions import Now
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone

from notifications import clock
from notifications.admin.overview.history import last_day, last_month
from notifications.admin.record_columns import RecordColumns
from notifications.admin.record_explanations import explain_record
from notifications.api import replay_notifications, request_notification, schedule_job
from notifications.channels.rules import ChannelSettings, apply_changes, encrypt_validated
from notifications.channels.test_message import send_test_message
from notifications.clock import database_now
from notifications.ingest.triggers import TRIGGERED
from notifications.ingest.validation import InvalidNotification
from notifications.models import DueJob, NotificationRecord, UserNotificationChannel
from notifications.providers.base import SendResult
from notifications.providers.http.messages import _retry_after, parse_http_date, parse_retry_after
from notifications.states import Measure, Outcome, Status
from notifications.testing import deliver_notifications, using_memory
from tests.support.counter_rows import make_counter
from tests.support.factories import make_record
from tests.support.payloads import payload, trigger

pytestmark = pytest.mark.django_db
ADDRESS = "https://www.feishu.cn/flow/api/trigger-webhook/0123456789abcdef"
ZONES = ("UTC", "Asia/Kolkata", "America/St_Johns", "Asia/Shanghai")


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The time zone of the project, as Django sets it: for itself and for the process."""
    before = os.environ.get("TZ", "UTC")
    with override_settings(TIME_ZONE=request.param):
        yield request.param
    os.environ["TZ"] = before
    time.tzset()


def test_charts_show_the_attempts_of_this_hour(zone: str) -> None:
    make_counter(Measure.ATTEMPTS, 12, outcome=Outcome.SUCCESS)
    now = datetime.now(UTC)

    for span in (last_day(now), last_month(now)):
        numbers = {row.step: row.number for row in span.read_counters()}
        assert sum(numbers.get(step, 0) for step in span.steps) == 12, (zone, span.name)


def test_dates_of_endpoints_are_in_utc(zone: str) -> None:
    moment = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
    forms = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994")

    assert {form: parse_http_date(form) for form in forms} == dict.fromkeys(forms, moment.timestamp())
    later = (datetime.now(UTC) + timedelta(seconds=120)).strftime("%a %b %d %H:%M:%S %Y")
    assert 110 < parse_retry_after(later, time.time()) <= 120


def test_a_date_to_wait_for_is_read_on_the_endpoints_clock() -> None:
    date, later = "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:51:37 GMT"
    soon = formatdate(time.time() + 60, usegmt=True)
    cases: dict[str, tuple[dict[str, str], float]] = {
        "its clock is wrong": ({"date": date, "retry-after": later}, 120),
        "over already": ({"date": later, "retry-after": date}, 0),
        "the longer one counts": ({"date": date, "retry-after": later, "x-ogw-ratelimit-reset": "130"}, 130),
        "seconds need no clock": ({"date": date, "retry-after": "7"}, 7),
        "no date of its own": ({"retry-after": soon}, 60),
        "no date that can be read": ({"date": "yesterday", "retry-after": soon}, 60),
        "nothing": ({"date": date}, 0),
    }
    for name, (headers, seconds) in cases.items():
        assert _retry_after(headers) == pytest.approx(seconds, abs=10 if "no date" in name else 0), name


def test_time_that_cannot_be_stored_is_refused_by_name() -> None:
    beyond = datetime(9999, 12, 31, 23, 59, tzinfo=fixed_offset(timedelta(hours=-12)))
    before = datetime(1, 1, 1, 1, tzinfo=fixed_offset(timedelta(hours=12)))
    far = datetime(2027, 1, 1, tzinfo=fixed_offset(timedelta(hours=16)))
    naive = datetime(2027, 1, 1)  # noqa: DTZ001

    for moment in (beyond, before, far, naive):
        with pytest.raises(InvalidNotification) as refused:
            request_notification(payload(), deliver_at=moment, expires_at=moment)
        assert [field for field, _reason in refused.value.errors] == ["deliver_at", "expires_at"], moment
        with pytest.raises(InvalidNotification) as refused:
            schedule_job(TRIGGERED, trigger(), moment, "job")
        assert "run_at" in [field for field, _reason in refused.value.errors], moment

    assert (NotificationRecord.objects.count(), DueJob.objects.count()) == (0, 0)


def test_time_with_a_large_offset_is_stored_as_it_is() -> None:
    moment = timezone.now().astimezone(fixed_offset(timedelta(hours=15, minutes=59)))

    record_id = request_notification(payload(), deliver_at=moment).record_id

    assert NotificationRecord.objects.get(pk=record_id).next_attempt_at == moment


@pytest.mark.parametrize("wrong_by", [timedelta(minutes=50), timedelta(hours=-2)], ids=str)
def test_a_web_machine_whose_clock_is_wrong_stores_postgresqls_time(
    make_user: Callable[..., User], monkeypatch: pytest.MonkeyPatch, wrong_by: timedelta
) -> None:
    user = make_user(webhook_url=f"{ADDRESS}1")
    channels = UserNotificationChannel.objects.filter(user=user)
    channels.update(paused_at=Now(), pause_reason="provider_config")
    make_counter(Measure.ATTEMPTS, 12, outcome=Outcome.SUCCESS)
    before, right = database_now(), timezone.now
    with monkeypatch.context() as machine, using_memory():
        machine.setattr(timezone, "now", lambda: right() + wrong_by)
        paused = channels.get()
        changes = ChannelSettings(webhook_url=encrypt_validated("webhook_url", f"{ADDRESS}2", "feishu"))
        paused.save(update_fields=apply_changes(changes, paused))
        counted = sum(row.number for row in last_day(before).read_counters())
        send_test_message(user)
    after = database_now()

    times = {
        "release_at": paused.release_at,
        "updated_at": paused.updated_at,
        "last_test_at": channels.get().last_test_at,
    }
    assert {name: before <= (value or before - wrong_by) <= after for name, value in times.items()} == dict.fromkeys(
        times, True
    )
    assert counted == 12


@pytest.mark.parametrize("wrong_by", [timedelta(minutes=50), timedelta(hours=-2)], ids=str)
def test_pages_compare_stored_times_with_postgresqls_clock(
    monkeypatch: pytest.MonkeyPatch, wrong_by: timedelta
) -> None:
    def said(**columns: Any) -> str:
        record = make_record(**columns)
        return " ".join([str(admin.next_attempt(record)), *explain_record(record)])

    admin, now, right = RecordColumns(), database_now(), timezone.now
    monkeypatch.setattr(clock, "_measured_at", float("-inf"))
    monkeypatch.setattr(clock, "_offset", timedelta())  # so that the right one is back after the test
    monkeypatch.setattr(timezone, "now", lambda: right() + wrong_by)
    failed = {"status": Status.FAILED, "attempt_count": 1}
    expiring = {"status": Status.DEAD, "next_attempt_at": None, "last_error_code": "provider_5xx"}

    assert "in 29\xa0minutes" in said(**failed, next_attempt_at=now + timedelta(minutes=30))
    assert "due 30\xa0minutes ago" in said(**failed, next_attempt_at=now - timedelta(minutes=30))
    assert "It has expired" not in said(**expiring, expires_at=now + timedelta(minutes=30))
    assert "It has expired" in said(**expiring, expires_at=now - timedelta(minutes=30))


@pytest.mark.django_db(transaction=True)
def test_main_paths_work_in_every_zone_where_django_wraps_views_in_transactions(
    zone: str, admin_user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    client = Client()
    client.force_login(admin_user)
    api, lists = "/api/channels/feishu", "admin:notifications_{}_changelist"

    with using_memory() as provider:
        saved = client.put(api, {"enabled": True, "webhook_url": f"{ADDRESS}1"}, content_type="application/json")
        own_test = client.post(f"{api}/test")
        channel = UserNotificationChannel.objects.get()
        action = {"action": "send_test", "_selected_action": [channel.pk]}
        admin_test = client.post(reverse(lists.format("usernotificationchannel")), action, follow=True)

        provider.script(SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx"))
        later = database_now() + timedelta(hours=2)
        request_notification(payload(user_id=admin_user.pk, dedupe_key="now"))
        request_notification(payload(user_id=admin_user.pk, dedupe_key="later"), deliver_at=later)
        steps = [
            _statuses(),
            *(_deliver(at) for at in (None, later - timedelta(minutes=1), later + timedelta(hours=1))),
        ]
        replayed = replay_notifications(NotificationRecord.objects.filter(dedupe_key="now"), None, "test", force=True)
        steps.append(_deliver(None))

    pages = ["/admin/", "/api/notifications", reverse(lists.format("notificationrecord"))]
    pages += [
        reverse("admin:notifications_notificationrecord_change", args=[record.pk])
        for record in NotificationRecord.objects.all()
    ]
    assert {page: client.get(page).status_code for page in pages} == dict.fromkeys(pages, 200)
    assert (saved.status_code, own_test.status_code, own_test.json()["status"]) == (200, 200, "sent"), zone
    assert "the test message was delivered" in admin_test.content.decode()
    assert replayed == 1
    assert steps == [
        {"now": "pending", "later": "pending"},
        {"now": "failed", "later": "pending"},
        {"now": "sent", "later": "pending"},
        {"now": "sent", "later": "sent"},
        {"now": "sent", "later": "sent"},
    ]
    assert len(provider.requests) == 6
    assert sum(row.number for row in last_day(database_now()).read_counters()) > 0


def _deliver(at: datetime | None) -> dict[str, str]:
    deliver_notifications(at=at)
    return _statuses()


def _statuses() -> dict[str, str]:
    records = NotificationRecord.objects.exclude(dedupe_key__startswith="test:")
    return dict(records.values_list("dedupe_key", "status"))
