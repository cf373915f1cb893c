"""The main paths in any time zone: charts, times from callers, and dates from endpoints."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone as fixed_offset

import pytest
from django.test import override_settings
from django.utils import timezone

from notifications.admin.overview.history import last_day, last_month
from notifications.api import request_notification, schedule_job
from notifications.ingest.triggers import TRIGGERED
from notifications.ingest.validation import InvalidNotification
from notifications.models import DueJob, NotificationRecord
from notifications.providers.http.client import parse_http_date, parse_retry_after
from notifications.states import Measure, Outcome
from tests.support.counter_rows import make_counter
from tests.support.payloads import payload, trigger

pytestmark = pytest.mark.django_db
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
    assert 110 < parse_retry_after(later) <= 120


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
