"""What the service promises to producers and operators."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User

from notifications.broker.redis_client import gateway
from notifications.conf import service_options
from notifications.delivery.locks import Locks
from notifications.ingest.validation import DedupeConflict, InvalidNotification
from notifications.models import NotificationRecord, RejectedRequest
from notifications.providers.base import SendResult
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from notifications.states import Outcome, Status
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db

REFUSED = SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="payload_invalid", error_message="no")
LATER = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_timeout")


@pytest.fixture
def service(memory: MemoryProvider) -> NotificationService:
    return NotificationService(providers={"feishu": memory})


class TestHandle:
    def test_a_new_event_is_stored_and_sent(self, service: NotificationService, memory: MemoryProvider) -> None:
        result = service.handle_feishu_requested(payload())

        record = NotificationRecord.objects.get()
        assert (result.record_id, result.status, result.reused, result.delivered) == (record.pk, "sent", False, True)
        assert (record.status, record.user_id, len(memory.requests)) == (Status.SENT, 42, 1)
        assert record.sent_at is not None

    def test_a_duplicate_sends_nothing(self, service: NotificationService, memory: MemoryProvider) -> None:
        service.handle_feishu_requested(payload())

        again = service.handle_feishu_requested(payload(summary_text="other words"))

        assert (again.reused, again.delivered, len(memory.requests)) == (True, False, 1)
        assert NotificationRecord.objects.get().summary_text == "写周报改到周四上午"

    def test_the_result_is_json(self, service: NotificationService, memory: MemoryProvider) -> None:
        memory.script(LATER)

        fields = service.handle_feishu_requested(payload()).as_json()

        assert fields["status"] == "failed"
        assert fields["provider_error"] == "provider_timeout"
        assert datetime.fromisoformat(fields["next_retry_at"]).tzinfo is not None

    def test_a_key_in_other_hands_is_stored_and_left_to_the_sweep(self, memory: MemoryProvider) -> None:
        options = dataclasses.replace(service_options(), lock_wait=0.1)
        service = NotificationService(options=options, providers={"feishu": memory})
        held = Locks(gateway(), ttl=60).acquire(["feishu|42:important_urgent_task:1"])

        result = service.handle_feishu_requested(payload())

        assert (result.status, result.delivered, memory.requests) == ("pending", False, [])
        Locks(gateway(), ttl=60).release(held)
        assert service.retry_feishu_notifications().sent == 1

    def test_waits_for_a_key_that_is_held_for_a_moment(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        held = Locks(gateway(), ttl=60).acquire(["feishu|42:important_urgent_task:1"])
        timer = threading.Timer(0.2, Locks(gateway(), ttl=60).release, [held])
        timer.start()

        result = service.handle_feishu_requested(payload())

        timer.join()
        assert result.delivered

    def test_the_key_is_free_afterwards(self, service: NotificationService) -> None:
        service.handle_feishu_requested(payload())

        assert Locks(gateway(), ttl=60).acquire(["feishu|42:important_urgent_task:1"]).keys

    def test_works_without_redis(self, memory: MemoryProvider) -> None:
        service = NotificationService(providers={"feishu": memory}, use_redis=False)

        assert service.handle_feishu_requested(payload()).delivered


class TestAccept:
    def test_a_key_of_another_user_is_a_conflict_and_stores_nothing(self, service: NotificationService) -> None:
        service.accept([payload()])

        with pytest.raises(DedupeConflict, match="dedupe_key"):
            service.accept([payload(dedupe_key="new"), payload(user_id=43)])

        assert NotificationRecord.objects.count() == 1

    def test_one_bad_payload_among_many_stores_none(self, service: NotificationService) -> None:
        with pytest.raises(InvalidNotification, match="user_id"):
            service.accept([payload(), payload(dedupe_key="b", user_id=-1)])

        assert not NotificationRecord.objects.exists()

    def test_the_same_key_twice_in_one_call_is_one_record(self, service: NotificationService) -> None:
        first, second = service.accept([payload(), payload()])

        assert first.record_id == second.record_id
        assert (first.reused, second.reused) == (False, True)

    def test_many_are_answered_in_their_order(self, service: NotificationService) -> None:
        keys = [f"k{number}" for number in range(2500)]

        accepted = service.accept([payload(dedupe_key=key) for key in keys])

        stored = dict(NotificationRecord.objects.values_list("id", "dedupe_key"))
        assert [stored[one.record_id] for one in accepted] == keys

    def test_none_is_fine(self, service: NotificationService) -> None:
        assert service.accept([]) == []

    def test_a_user_id_the_table_cannot_hold_is_refused_by_name(self, service: NotificationService) -> None:
        with pytest.raises(InvalidNotification, match="user_id"):
            service.accept([payload(user_id=2**40)])

    def test_an_unknown_user_is_kept(self, service: NotificationService) -> None:
        [accepted] = service.accept([payload(user_id=999_999)])

        assert NotificationRecord.objects.get(pk=accepted.record_id).user_id == 999_999

    def test_a_naive_deliver_at_is_refused_by_name(self, service: NotificationService) -> None:
        with pytest.raises(InvalidNotification, match="deliver_at"):
            service.accept([payload()], deliver_at=datetime(2026, 5, 1))  # noqa: DTZ001

    def test_a_scheduled_one_waits_for_its_time(self, memory: MemoryProvider) -> None:
        now = datetime(2026, 5, 1, 8, tzinfo=UTC)
        service = NotificationService(providers={"feishu": memory}, clock=lambda: now)
        service.accept([payload()], deliver_at=now + timedelta(hours=1))

        assert service.retry_due(now=now + timedelta(minutes=59)) == 0
        assert service.retry_due(now=now + timedelta(minutes=60)) == 1


class TestReject:
    def test_keeps_whatever_came_with_every_reason(self, service: NotificationService) -> None:
        error = InvalidNotification([("user_id", "must be positive"), ("target_url", "must not be blank")])

        service.reject("test", {"bad": "\x00 \ud800 <b>", "n": 1}, error)

        rejected = RejectedRequest.objects.get()
        assert "\\u0000 \\ud800 <b>" in rejected.payload
        assert [item["field"] for item in rejected.errors] == ["user_id", "target_url"]


class TestReplay:
    def dead(self, service: NotificationService, memory: MemoryProvider) -> NotificationRecord:
        memory.script(REFUSED)
        return NotificationRecord.objects.get(pk=service.handle_feishu_requested(payload()).record_id)

    def test_a_dead_one_gets_a_fresh_budget_and_keeps_its_history(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        record = self.dead(service, memory)

        assert service.replay(NotificationRecord.objects.all(), None, "endpoint mended") == 1

        record.refresh_from_db()
        assert (record.status, record.attempt_count, record.round) == (Status.PENDING, 0, 1)
        service.retry_feishu_notifications()
        record.refresh_from_db()
        assert record.status == Status.SENT
        facts = list(record.attempts.values_list("round", "number", "cause", "outcome"))
        assert facts == [(0, 1, "event", "permanent_fail"), (1, 1, "replay", "success")]

    def test_a_sent_one_is_refused_unless_forced(self, service: NotificationService) -> None:
        service.handle_feishu_requested(payload())
        everything = NotificationRecord.objects.all()

        assert service.replay(everything, None, "again") == 0
        assert service.replay(everything, None, "again", force=True) == 1

    def test_a_cancelled_one_is_refused_unless_forced(self, service: NotificationService) -> None:
        service.accept([payload()])
        everything = NotificationRecord.objects.all()
        service.cancel(everything, None, "not wanted")

        assert service.replay(everything, None, "again") == 0
        assert service.replay(everything, None, "again", force=True) == 1

    @pytest.mark.parametrize("status", [Status.PENDING, Status.FAILED, Status.SENDING])
    def test_what_is_on_its_way_is_left_alone_even_when_forced(
        self, service: NotificationService, memory: MemoryProvider, status: Status
    ) -> None:
        record = self.dead(service, memory)
        lease = "00000000-0000-0000-0000-000000000001" if status == Status.SENDING else None
        NotificationRecord.objects.update(status=status, next_attempt_at=datetime.now(UTC), lease_token=lease)

        assert service.replay(NotificationRecord.objects.all(), None, "x", force=True) == 0
        record.refresh_from_db()
        assert record.round == 0

    def test_who_and_why_are_kept(
        self, service: NotificationService, memory: MemoryProvider, make_user: Callable[..., User]
    ) -> None:
        record = self.dead(service, memory)
        operator = make_user("operator")

        service.replay(NotificationRecord.objects.all(), operator, "endpoint mended")

        entry = LogEntry.objects.get()
        assert (entry.user, entry.object_id) == (operator, str(record.pk))
        assert "endpoint mended" in entry.change_message

    def test_more_than_one_batch_is_replayed_whole(
        self, service: NotificationService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("notifications.record_operations.OPERATION_BATCH_RECORDS", 3)
        service.accept([payload(dedupe_key=f"k{number}") for number in range(10)])
        NotificationRecord.objects.update(status=Status.DEAD, next_attempt_at=None)

        assert service.replay(NotificationRecord.objects.all(), None, "x") == 10


class TestCancel:
    def test_a_waiting_one_is_skipped_and_never_sent(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        service.accept([payload()])

        assert service.cancel(NotificationRecord.objects.all(), None, "called off") == 1

        record = NotificationRecord.objects.get()
        assert (record.status, record.last_error_code) == (Status.SKIPPED, "cancelled")
        assert service.retry_due() == 0
        assert memory.requests == []

    def test_a_sent_one_stays_sent(self, service: NotificationService) -> None:
        service.handle_feishu_requested(payload())

        assert service.cancel(NotificationRecord.objects.all(), None, "too late") == 0
