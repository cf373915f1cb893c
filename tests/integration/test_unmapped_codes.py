"""Codes without a meaning: reported once, and given up after a few attempts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from notifications.delivery import unmapped_codes
from notifications.delivery.engine import Engine
from notifications.models import DeliveryAttempt, NotificationRecord
from notifications.signals import unmapped_answer
from notifications.testing.sandbox.server import Sandbox
from tests.integration.rows import make_record

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "canary0123456789abcdef0123456789"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_told() -> Iterator[None]:
    unmapped_codes.reset_reported_codes()
    yield
    unmapped_codes.reset_reported_codes()


@pytest.fixture
def heard() -> Iterator[list[dict[str, Any]]]:
    """Everything the signal said."""
    calls: list[dict[str, Any]] = []

    def listen(**facts: Any) -> None:
        NotificationRecord.objects.count()  # receivers may use the database
        calls.append(facts)

    unmapped_answer.connect(listen)
    yield calls
    unmapped_answer.disconnect(listen)


@pytest.fixture
def deliver(make_user: Callable[..., Any], change: Callable[..., None]) -> Iterator[Callable[[str], None]]:
    """Return a function that delivers what is due to an endpoint that answers with this word."""
    with Sandbox() as sandbox:
        change(SANDBOX_ORIGINS=[sandbox.origin], RETRY_BASE_DELAY=0.001)
        user = make_user(webhook_url=f"{sandbox.origin}/flow/api/trigger-webhook/{KEY}")

        def run(word: str) -> None:
            sandbox.script(KEY, word)
            make_record("pending", user_id=user.pk, next_attempt_at=LONG_AGO)
            Engine().deliver_due()

        yield run


def test_a_code_is_reported_once_with_what_a_person_needs(
    deliver: Callable[[str], None], heard: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "notifications.providers"):
        deliver(f"code:424242:what {KEY} is")
        deliver("code:424242")
        deliver("code:434343")

    assert [(one["channel"], one["code"]) for one in heard] == [("feishu", "424242"), ("feishu", "434343")]
    assert heard[0]["message"] == "code 424242: what ******** is"
    assert NotificationRecord.objects.filter(pk=heard[0]["record_id"]).exists()
    assert sum("no rule maps" in line.message for line in caplog.records) == 2


def test_a_code_with_a_meaning_is_not_reported(deliver: Callable[[str], None], heard: list[dict[str, Any]]) -> None:
    deliver("code:19001")

    assert heard == []


def test_it_ends_dead_after_three_attempts(deliver: Callable[[str], None]) -> None:
    deliver("code:424242")
    for _ in range(4):
        NotificationRecord.objects.exclude(next_attempt_at=None).update(next_attempt_at=LONG_AGO)
        Engine().deliver_due()

    record = NotificationRecord.objects.get()
    assert (record.status, record.attempt_count, record.max_attempts) == ("dead", 3, 5)
    assert record.last_error_code == "provider_unmapped"
    assert DeliveryAttempt.objects.count() == 3


def test_a_receiver_that_fails_harms_no_delivery(
    deliver: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**facts: Any) -> None:
        raise ValueError("canary")

    unmapped_answer.connect(fail)
    try:
        deliver("code:424242")
    finally:
        unmapped_answer.disconnect(fail)

    assert NotificationRecord.objects.get().status in ("failed", "dead")
    assert any("receiver of unmapped_answer failed" in line.message for line in caplog.records)


def test_made_up_codes_do_not_fill_the_log(
    deliver: Callable[[str], None], heard: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unmapped_codes, "MAX_REPORTED_CODES", 2)

    for code in (424241, 424242, 424243):
        deliver(f"code:{code}")

    assert len(heard) == 2
