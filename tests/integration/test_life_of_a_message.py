"""From when and until when a message may go out, and how its producer calls it off."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from notifications.api import cancel_notification, request_notification
from notifications.ingest.validation import InvalidNotification
from notifications.models import NotificationRecord
from notifications.providers.memory import MemoryProvider
from notifications.states import Status
from tests.conftest import payload
from tests.integration.test_delivery import NOW, OK, TRY_LATER, Clock, clock, engine, record

__all__ = ["clock"]

pytestmark = pytest.mark.django_db


def test_one_whose_time_is_over_is_skipped_with_its_code_and_not_sent_late(
    memory: MemoryProvider, clock: Clock
) -> None:
    row = record(expires_at=NOW)

    result = engine(memory, clock).deliver_due()

    row.refresh_from_db()
    assert memory.requests == []
    assert (result.skipped, row.status, row.last_error_code, row.attempt_count) == (1, Status.SKIPPED, "expired", 0)
    assert not row.attempts.exists()


def test_one_whose_time_is_not_over_is_sent(memory: MemoryProvider, clock: Clock) -> None:
    record(expires_at=NOW + timedelta(microseconds=1))

    assert engine(memory, clock).deliver_due().sent == 1


def test_a_retry_is_not_sent_late_either(memory: MemoryProvider, clock: Clock) -> None:
    row = record(expires_at=NOW + timedelta(seconds=200))
    memory.script(TRY_LATER, OK)

    engine(memory, clock).deliver_due()
    clock.forward(seconds=300)
    engine(memory, clock).deliver_due()

    row.refresh_from_db()
    assert (len(memory.requests), row.status, row.attempt_count) == (1, Status.SKIPPED, 1)


def test_a_lost_attempt_of_an_expired_one_is_noted_and_nothing_is_sent(memory: MemoryProvider, clock: Clock) -> None:
    row = record(status=Status.SENDING, attempt_count=1, expires_at=NOW)

    engine(memory, clock).deliver_due()

    row.refresh_from_db()
    assert (memory.requests, row.status, row.attempt_count) == ([], Status.SKIPPED, 1)
    assert "may have arrived" in row.last_error
    assert list(row.attempts.values_list("number", "outcome")) == [(1, "lost")]


def test_expiry_is_asked_for_with_the_request() -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)

    accepted = request_notification(payload(), expires_at=until)

    assert NotificationRecord.objects.get(pk=accepted.record_id).expires_at == until


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"expires_at": datetime(2030, 1, 1)}, "must have a time zone"),  # noqa: DTZ001
        (
            {"deliver_at": datetime(2030, 1, 2, tzinfo=UTC), "expires_at": datetime(2030, 1, 2, tzinfo=UTC)},
            "must be later than deliver_at",
        ),
    ],
)
def test_times_that_make_no_sense_are_refused_by_name(times: dict[str, datetime], reason: str) -> None:
    with pytest.raises(InvalidNotification) as refused:
        request_notification(payload(), deliver_at=times.get("deliver_at"), expires_at=times["expires_at"])

    assert [(field, str(text)) for field, text in refused.value.errors] == [("expires_at", reason)]
    assert not NotificationRecord.objects.exists()


def test_its_producer_calls_one_off_by_its_key() -> None:
    accepted = request_notification(payload(dedupe_key="k1"))
    other = request_notification(payload(dedupe_key="k1"), channel="email")

    assert cancel_notification("k1", reason="the plan changed")

    row = NotificationRecord.objects.get(pk=accepted.record_id)
    assert (row.status, row.last_error_code, row.next_attempt_at) == (Status.SKIPPED, "cancelled", None)
    assert NotificationRecord.objects.get(pk=other.record_id).status == Status.PENDING


@pytest.mark.parametrize("status", [Status.SENDING, Status.SENT, Status.DEAD, Status.SKIPPED])
def test_what_is_out_of_its_producers_hands_cannot_be_called_off(status: Status) -> None:
    waits = status == Status.SENDING
    row = record("k1", status=status, next_attempt_at=NOW if waits else None)

    assert not cancel_notification("k1")
    assert not cancel_notification("unknown")
    row.refresh_from_db()
    assert row.status == status
