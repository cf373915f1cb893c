"""Error codes that no rule maps: reported once, and final after a few attempts."""

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
from tests.support.factories import make_record

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "canary0123456789abcdef0123456789"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _no_reported_codes() -> Iterator[None]:
    unmapped_codes.reset_reported_codes()
    yield
    unmapped_codes.reset_reported_codes()


@pytest.fixture
def signals() -> Iterator[list[dict[str, Any]]]:
    """The arguments of each signal."""
    calls: list[dict[str, Any]] = []

    def listen(**arguments: Any) -> None:
        NotificationRecord.objects.count()  # receivers may use the database
        calls.append(arguments)

    unmapped_answer.connect(listen)
    yield calls
    unmapped_answer.disconnect(listen)


@pytest.fixture
def deliver(make_user: Callable[..., Any], change: Callable[..., None]) -> Iterator[Callable[[str], None]]:
    """Return a function that delivers what is due to an endpoint that returns the scripted answer."""
    with Sandbox() as sandbox:
        change(SANDBOX_ORIGINS=[sandbox.origin], RETRY_BASE_DELAY=0.001)
        user = make_user(webhook_url=f"{sandbox.origin}/flow/api/trigger-webhook/{KEY}")

        def run(answer: str) -> None:
            sandbox.script(KEY, answer)
            make_record("pending", user_id=user.pk, next_attempt_at=LONG_AGO)
            Engine().deliver_due()

        yield run


def test_unmapped_code_is_reported_once_with_its_message(
    deliver: Callable[[str], None], signals: list[dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "notifications.providers"):
        deliver(f"code:424242:what {KEY} is")
        deliver("code:424242")
        deliver("code:434343")

    assert [(call["channel"], call["code"]) for call in signals] == [("feishu", "424242"), ("feishu", "434343")]
    assert signals[0]["message"] == "code 424242: what ******** is"
    assert NotificationRecord.objects.filter(pk=signals[0]["record_id"]).exists()
    assert sum("no rule maps" in line.message for line in caplog.records) == 2


def test_mapped_code_is_not_reported(deliver: Callable[[str], None], signals: list[dict[str, Any]]) -> None:
    deliver("code:19001")

    assert signals == []


def test_record_with_an_unmapped_code_is_dead_after_three_attempts(deliver: Callable[[str], None]) -> None:
    deliver("code:424242")
    for _ in range(4):
        NotificationRecord.objects.exclude(next_attempt_at=None).update(next_attempt_at=LONG_AGO)
        Engine().deliver_due()

    record = NotificationRecord.objects.get()
    assert (record.status, record.attempt_count, record.max_attempts) == ("dead", 3, 5)
    assert record.last_error_code == "provider_unmapped"
    assert DeliveryAttempt.objects.count() == 3


def test_failing_signal_receiver_does_not_affect_the_delivery(
    deliver: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**arguments: Any) -> None:
        raise ValueError("canary")

    unmapped_answer.connect(fail)
    try:
        deliver("code:424242")
    finally:
        unmapped_answer.disconnect(fail)

    assert NotificationRecord.objects.get().status in ("failed", "dead")
    assert any("receiver of unmapped_answer failed" in line.message for line in caplog.records)


def test_number_of_reported_codes_is_limited(
    deliver: Callable[[str], None], signals: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unmapped_codes, "MAX_REPORTED_CODES", 2)

    for code in (424241, 424242, 424243):
        deliver(f"code:{code}")

    assert len(signals) == 2
