"""With a router that reads from a replica which lags, everything is read where it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import transaction
from django.test import Client
from django.utils import timezone

from notifications import api
from notifications.maintenance.job_scheduler import run_due_jobs
from notifications.models import DeliveryAttempt, DueJob, NotificationRecord, RejectedRequest, UserNotificationChannel
from notifications.service import NotificationService
from notifications.states import Status
from notifications.testing import using_memory
from tests.support.lagging_replica import lagging_replica
from tests.support.payloads import payload, trigger

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def replica() -> Iterator[None]:
    with lagging_replica():
        yield


@pytest.fixture
def user() -> Any:
    user = get_user_model().objects.create_superuser("ada", "ada@example.com", "pw")
    UserNotificationChannel.objects.create(
        user=user, enabled=True, webhook_url="https://www.feishu.cn/flow/api/x/abcdefgh"
    )
    return user


def test_a_read_from_the_replica_would_fail() -> None:
    with pytest.raises(AssertionError, match="replica"):
        get_user_model().objects.count()


def test_a_request_twice_in_one_transaction_is_one_record() -> None:
    with transaction.atomic():
        first, second = api.request_notification(payload()), api.request_notification(payload())

    assert (first.record_id, first.reused, second.reused) == (second.record_id, False, True)


def test_an_event_is_delivered_once(user: Any) -> None:
    with using_memory() as memory:
        result = NotificationService().handle_feishu_requested(payload(user_id=user.pk))
        again = NotificationService().handle_feishu_requested(payload(user_id=user.pk))

    assert (result.status, result.delivered, again.reused, again.delivered) == (Status.SENT, True, True, False)
    assert len(memory.requests) == 1
    record = NotificationRecord.objects.get()
    assert record.attempts.count() == DeliveryAttempt.objects.count() == 1


def test_operators_find_what_was_just_written(user: Any) -> None:
    record_id = api.request_notification(payload(user_id=user.pk)).record_id

    assert api.cancel_notification(payload()["dedupe_key"])
    assert NotificationRecord.objects.get(pk=record_id).status == Status.SKIPPED
    assert api.replay_notifications(NotificationRecord.objects.filter(pk=record_id), None, "test", force=True) == 1
    with using_memory() as memory:
        call_command("deliver_due")
    assert len(memory.requests) == 1


def test_mail_goes_to_the_address_that_the_user_has_now(user: Any, mailoutbox: list[Any]) -> None:
    UserNotificationChannel.objects.create(user=user, channel="email", enabled=True)
    api.request_notification(payload(user_id=user.pk), channel="email")

    call_command("deliver_due")

    assert [mail.to for mail in mailoutbox] == [["ada@example.com"]]


def test_due_jobs_and_replay_operations_run(user: Any) -> None:
    api.schedule_job("active_schedule.triggered", trigger(), timezone.now(), "job")
    record_id = api.request_notification(payload(user_id=user.pk)).record_id
    NotificationRecord.objects.filter(pk=record_id).update(
        status=Status.DEAD, next_attempt_at=None, last_error_code="provider_5xx"
    )

    published: list[Any] = []
    run_due_jobs(lambda event, payload: published.append(payload))
    call_command("replay_notifications", "--status", "dead", "--reason", "test", "--rate", "1000")

    assert len(published) == 1
    assert DueJob.objects.get().done_at is not None
    assert NotificationRecord.objects.get(pk=record_id).round == 1


def test_the_http_api_and_the_admin_show_what_was_just_written(user: Any) -> None:
    record_id = api.request_notification(payload(user_id=user.pk)).record_id
    rejected = RejectedRequest.objects.create(source="test", payload=json.dumps({}), errors=[])

    assert NotificationRecord.objects.search(str(record_id)).get().pk == record_id
    assert rejected in RejectedRequest.objects.all()
    assert Client().get("/readyz").status_code in (200, 503)
