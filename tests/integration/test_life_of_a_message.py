"""When a message may be sent, and how its producer cancels it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from notifications.api import cancel_notification, request_notification
from notifications.ingest.validation import InvalidNotification
from notifications.models import NotificationRecord
from notifications.providers.memory import MemoryProvider
from notifications.states import Status
from tests.support.delivery import NOW, OK, TRY_LATER, Clock, make_due_record, make_engine
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db


def test_expired_message_is_skipped_with_the_code_expired(memory: MemoryProvider, clock: Clock) -> None:
    row = make_due_record(expires_at=NOW)

    result = make_engine(memory, clock).deliver_due()

    row.refresh_from_db()
    assert memory.requests == []
    assert (result.skipped, row.status, row.last_error_code, row.attempt_count) == (1, Status.SKIPPED, "expired", 0)
    assert not row.attempts.exists()


def test_message_is_sent_until_it_expires(memory: MemoryProvider, clock: Clock) -> None:
    make_due_record(expires_at=NOW + timedelta(microseconds=1))

    assert make_engine(memory, clock).deliver_due().sent == 1


def test_retry_of_an_expired_message_is_not_sent(memory: MemoryProvider, clock: Clock) -> None:
    row = make_due_record(expires_at=NOW + timedelta(seconds=200))
    memory.script(TRY_LATER, OK)

    make_engine(memory, clock).deliver_due()
    clock.forward(seconds=300)
    make_engine(memory, clock).deliver_due()

    row.refresh_from_db()
    assert (len(memory.requests), row.status, row.attempt_count) == (1, Status.SKIPPED, 1)


def test_lost_attempt_of_an_expired_message_is_recorded_and_nothing_is_sent(
    memory: MemoryProvider, clock: Clock
) -> None:
    row = make_due_record(status=Status.SENDING, attempt_count=1, expires_at=NOW)

    make_engine(memory, clock).deliver_due()

    row.refresh_from_db()
    assert (memory.requests, row.status, row.attempt_count) == ([], Status.SKIPPED, 1)
    assert "may have arrived" in row.last_error
    assert list(row.attempts.values_list("number", "outcome")) == [(1, "lost")]


def test_expiry_is_part_of_the_request() -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)

    accepted = request_notification(payload(), expires_at=until)

    assert NotificationRecord.objects.get(pk=accepted.record_id).expires_at == until


def test_invalid_expiry_is_refused_with_its_reason() -> None:
    time = datetime(2030, 1, 2, tzinfo=UTC)
    reasons = {
        (None, time.replace(tzinfo=None)): "must have a time zone",
        (time, time): "must be later than deliver_at",
    }

    for (deliver_at, expires_at), reason in reasons.items():
        with pytest.raises(InvalidNotification) as refused:
            request_notification(payload(), deliver_at=deliver_at, expires_at=expires_at)

        assert [(field, str(text)) for field, text in refused.value.errors] == [("expires_at", reason)]
    assert not NotificationRecord.objects.exists()


def test_producer_cancels_a_message_by_its_key() -> None:
    accepted = request_notification(payload(dedupe_key="k1"))
    other = request_notification(payload(dedupe_key="k1"), channel="email")

    assert cancel_notification("k1", reason="the plan changed")

    row = NotificationRecord.objects.get(pk=accepted.record_id)
    assert (row.status, row.last_error_code, row.next_attempt_at) == (Status.SKIPPED, "cancelled", None)
    assert NotificationRecord.objects.get(pk=other.record_id).status == Status.PENDING


def test_white_space_around_a_key_is_no_part_of_it_for_a_cancellation_too() -> None:
    request_notification(payload(dedupe_key=" k1\u3000"))

    assert cancel_notification("\tk1 ")


def test_claimed_final_and_unknown_messages_cannot_be_cancelled() -> None:
    statuses = (Status.SENDING, Status.SENT, Status.DEAD, Status.SKIPPED)
    for status in statuses:
        make_due_record(str(status), status=status, next_attempt_at=NOW if status == Status.SENDING else None)

    cancelled = [key for key in (*statuses, "unknown") if cancel_notification(str(key))]

    assert cancelled == []
    stored = dict(NotificationRecord.objects.values_list("dedupe_key", "status"))
    assert stored == {str(status): status for status in statuses}
