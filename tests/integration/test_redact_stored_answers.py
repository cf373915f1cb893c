"""redact_stored_answers: finds what earlier versions stored of an address or token, and leaves everything else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from notifications.models import DeliveryAttempt, NotificationRecord, UserNotificationChannel
from notifications.states import Status
from tests.support.factories import make_record

pytestmark = pytest.mark.django_db

KEY = "canary-3f2a8b1c"
ANSWER = f"Cannot POST /hooks/{KEY}/start"


def run(*args: str) -> str:
    out = StringIO()
    call_command("redact_stored_answers", *args, stdout=out)
    assert "canary" not in out.getvalue()
    return out.getvalue()


@pytest.fixture
def record(make_user: Callable[..., User]) -> NotificationRecord:
    alice = make_user("alice")
    UserNotificationChannel.objects.create(
        user=alice,
        channel="webhook",
        webhook_url=f"https://host.example/hooks/{KEY}/start",
        bearer_token="canary-token-1",
    )
    stored = make_record(
        Status.DEAD,
        user_id=alice.pk,
        channel="webhook",
        last_error="HTTP 404",
        provider_response={"error": ANSWER, "n": 1},
    )
    attempt: dict[str, Any] = {"cause": "event", "outcome": "permanent_fail", "started_at": datetime.now(UTC)}
    DeliveryAttempt.objects.create(record=stored, number=1, error="HTTP 404", response_excerpt=ANSWER, **attempt)
    DeliveryAttempt.objects.create(
        record=stored, number=2, error="no", response_excerpt="Bearer canary-token-1", **attempt
    )
    DeliveryAttempt.objects.create(record=stored, number=3, error="no", response_excerpt="plain", **attempt)
    return stored


def test_stored_secrets_are_replaced_and_the_rest_is_kept(record: NotificationRecord) -> None:
    updated_at = record.updated_at

    report = run()

    record.refresh_from_db()
    assert record.provider_response == {"error": "Cannot POST /*****/********/*****", "n": 1}
    assert (record.last_error, record.updated_at) == ("HTTP 404", updated_at)
    assert [attempt.response_excerpt for attempt in record.attempts.all()] == [
        "Cannot POST /*****/********/*****",
        "Bearer ********",
        "plain",
    ]
    assert "1 channel was checked." in report
    assert "delivery attempts: 2" in report


def test_a_second_run_finds_nothing(record: NotificationRecord) -> None:
    run()

    assert "delivery attempts: 0" in run()


def test_a_dry_run_counts_and_changes_nothing(record: NotificationRecord) -> None:
    assert "delivery attempts: 2 contain a secret" in run("--dry-run")
    assert record.attempts.filter(response_excerpt=ANSWER).exists()


def test_a_channel_that_no_key_decrypts_is_named(record: NotificationRecord) -> None:
    channel = UserNotificationChannel.objects.get()
    UserNotificationChannel.objects.update(webhook_url=type(channel.webhook_url)("unreadable"))

    with pytest.raises(Exception, match=f"decrypts: {channel.pk}"):
        run()
