"""The service: accept, deliver, reject, replay and cancel notifications."""

from __future__ import annotations

import dataclasses
import hashlib
import json
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

PERMANENT_FAILURE = SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="payload_invalid", error_message="no")
TEMPORARY_FAILURE = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_timeout")


@pytest.fixture
def service(memory: MemoryProvider) -> NotificationService:
    return NotificationService(providers={"feishu": memory})


class TestHandle:
    def test_new_event_is_stored_and_sent(self, service: NotificationService, memory: MemoryProvider) -> None:
        result = service.handle_feishu_requested(payload())

        record = NotificationRecord.objects.get()
        assert (result.record_id, result.status, result.reused, result.delivered) == (record.pk, "sent", False, True)
        assert (record.status, record.user_id, len(memory.requests)) == (Status.SENT, 42, 1)
        assert record.sent_at is not None

    def test_duplicate_is_not_sent(self, service: NotificationService, memory: MemoryProvider) -> None:
        service.handle_feishu_requested(payload())

        duplicate = service.handle_feishu_requested(payload(summary_text="other words"))

        assert (duplicate.reused, duplicate.delivered, len(memory.requests)) == (True, False, 1)
        assert NotificationRecord.objects.get().summary_text == "写周报改到周四上午"

    def test_result_converts_to_json(self, service: NotificationService, memory: MemoryProvider) -> None:
        memory.script(TEMPORARY_FAILURE)

        fields = service.handle_feishu_requested(payload()).as_json()

        assert fields["status"] == "failed"
        assert fields["provider_error"] == "provider_timeout"
        assert datetime.fromisoformat(fields["next_retry_at"]).tzinfo is not None

    def test_request_with_locked_key_is_stored_and_delivered_by_sweep(self, memory: MemoryProvider) -> None:
        options = dataclasses.replace(service_options(), lock_wait=0.1)
        service = NotificationService(options=options, providers={"feishu": memory})
        lock = Locks(gateway(), ttl=60).acquire("feishu|42:important_urgent_task:1")

        result = service.handle_feishu_requested(payload())

        assert (result.status, result.delivered, memory.requests) == ("pending", False, [])
        assert lock
        Locks(gateway(), ttl=60).release(lock)
        assert service.retry_feishu_notifications().sent == 1

    def test_waits_for_key_that_is_locked_briefly(self, service: NotificationService, memory: MemoryProvider) -> None:
        lock = Locks(gateway(), ttl=60).acquire("feishu|42:important_urgent_task:1")
        timer = threading.Timer(0.2, Locks(gateway(), ttl=60).release, [lock])
        timer.start()

        result = service.handle_feishu_requested(payload())

        timer.join()
        assert result.delivered

    def test_key_lock_is_released_after_delivery(self, service: NotificationService) -> None:
        service.handle_feishu_requested(payload())

        assert Locks(gateway(), ttl=60).acquire("feishu|42:important_urgent_task:1")

    def test_works_without_redis(self, memory: MemoryProvider) -> None:
        service = NotificationService(providers={"feishu": memory}, use_redis=False)

        assert service.handle_feishu_requested(payload()).delivered


class TestAccept:
    def test_dedupe_key_of_another_user_raises_conflict_and_stores_nothing(self, service: NotificationService) -> None:
        service.accept([payload()])

        with pytest.raises(DedupeConflict, match="dedupe_key"):
            service.accept([payload(dedupe_key="new"), payload(user_id=43)])

        assert NotificationRecord.objects.count() == 1

    def test_one_invalid_payload_rejects_the_whole_list(self, service: NotificationService) -> None:
        with pytest.raises(InvalidNotification, match="user_id"):
            service.accept([payload(), payload(dedupe_key="b", user_id=-1)])

        assert not NotificationRecord.objects.exists()

    def test_same_key_twice_in_one_call_creates_one_record(self, service: NotificationService) -> None:
        first, second = service.accept([payload(), payload()])

        assert first.record_id == second.record_id
        assert (first.reused, second.reused) == (False, True)

    def test_results_keep_the_order_of_payloads(self, service: NotificationService) -> None:
        keys = [f"k{number}" for number in range(2500)]

        accepted = service.accept([payload(dedupe_key=key) for key in keys])

        stored = dict(NotificationRecord.objects.values_list("id", "dedupe_key"))
        assert [stored[result.record_id] for result in accepted] == keys

    def test_empty_list_is_accepted(self, service: NotificationService) -> None:
        assert service.accept([]) == []

    def test_user_id_out_of_column_range_is_rejected_with_field_name(self, service: NotificationService) -> None:
        with pytest.raises(InvalidNotification, match="user_id"):
            service.accept([payload(user_id=2**40)])

    def test_unknown_user_id_is_stored(self, service: NotificationService) -> None:
        [accepted] = service.accept([payload(user_id=999_999)])

        assert NotificationRecord.objects.get(pk=accepted.record_id).user_id == 999_999

    def test_naive_deliver_at_is_rejected_with_field_name(self, service: NotificationService) -> None:
        with pytest.raises(InvalidNotification, match="deliver_at"):
            service.accept([payload()], deliver_at=datetime(2026, 5, 1))  # noqa: DTZ001

    def test_scheduled_notification_is_not_sent_before_deliver_at(self, memory: MemoryProvider) -> None:
        now = datetime(2026, 5, 1, 8, tzinfo=UTC)
        service = NotificationService(providers={"feishu": memory}, clock=lambda: now)
        service.accept([payload()], deliver_at=now + timedelta(hours=1))

        assert service.retry_due(now=now + timedelta(minutes=59)) == 0
        assert service.retry_due(now=now + timedelta(minutes=60)) == 1


class TestReject:
    def test_rejected_payload_is_stored_with_every_error(self, service: NotificationService) -> None:
        error = InvalidNotification([("user_id", "must be positive"), ("target_url", "must not be blank")])

        service.reject("test", {"bad": "\x00 \ud800 <b>", "n": 1}, error)

        rejected = RejectedRequest.objects.get()
        assert "\\u0000 \\ud800 <b>" in rejected.payload
        assert [item["field"] for item in rejected.errors] == ["user_id", "target_url"]

    def test_of_a_long_payload_the_beginning_the_size_and_the_hash_are_kept(self, service: NotificationService) -> None:
        long = {"text": "x" * 3_000_000}

        service.reject("test", long, InvalidNotification([("payload", "is larger than 128 KiB")]))

        kept = json.loads(RejectedRequest.objects.get().payload)
        text = json.dumps(long)
        assert kept == {
            "beginning": text[: 256 * 1024],
            "size": len(text),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }


class TestReplay:
    def make_dead(self, service: NotificationService, memory: MemoryProvider) -> NotificationRecord:
        memory.script(PERMANENT_FAILURE)
        return NotificationRecord.objects.get(pk=service.handle_feishu_requested(payload()).record_id)

    def test_dead_notification_gets_new_attempts_and_keeps_old_ones(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        record = self.make_dead(service, memory)

        assert service.replay(NotificationRecord.objects.all(), None, "endpoint mended") == 1

        record.refresh_from_db()
        assert (record.status, record.attempt_count, record.round) == (Status.PENDING, 0, 1)
        service.retry_feishu_notifications()
        record.refresh_from_db()
        assert record.status == Status.SENT
        attempts = list(record.attempts.values_list("round", "number", "cause", "outcome"))
        assert attempts == [(0, 1, "event", "permanent_fail"), (1, 1, "replay", "success")]

    def test_sent_notification_is_replayed_only_with_force(self, service: NotificationService) -> None:
        service.handle_feishu_requested(payload())
        all_records = NotificationRecord.objects.all()

        assert service.replay(all_records, None, "again") == 0
        assert service.replay(all_records, None, "again", force=True) == 1

    def test_cancelled_notification_is_replayed_only_with_force(self, service: NotificationService) -> None:
        service.accept([payload()])
        all_records = NotificationRecord.objects.all()
        service.cancel(all_records, None, "not wanted")

        assert service.replay(all_records, None, "again") == 0
        assert service.replay(all_records, None, "again", force=True) == 1

    def test_unfinished_notification_is_not_replayed_even_with_force(
        self, service: NotificationService, memory: MemoryProvider, subtests: pytest.Subtests
    ) -> None:
        record = self.make_dead(service, memory)

        cases: list[Status] = [Status.PENDING, Status.FAILED, Status.SENDING]
        for status in cases:
            with subtests.test(status=status):
                lease = "00000000-0000-0000-0000-000000000001" if status == Status.SENDING else None
                NotificationRecord.objects.update(status=status, next_attempt_at=datetime.now(UTC), lease_token=lease)

                assert service.replay(NotificationRecord.objects.all(), None, "x", force=True) == 0
                record.refresh_from_db()
                assert record.round == 0

    def test_operator_and_reason_are_logged(
        self, service: NotificationService, memory: MemoryProvider, make_user: Callable[..., User]
    ) -> None:
        record = self.make_dead(service, memory)
        operator = make_user("operator")

        service.replay(NotificationRecord.objects.all(), operator, "endpoint mended")

        entry = LogEntry.objects.get()
        assert (entry.user, entry.object_id) == (operator, str(record.pk))
        assert "endpoint mended" in entry.change_message

    def test_several_batches_are_replayed_completely(
        self, service: NotificationService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("notifications.record_operations.OPERATION_BATCH_RECORDS", 3)
        service.accept([payload(dedupe_key=f"k{number}") for number in range(10)])
        NotificationRecord.objects.update(status=Status.DEAD, next_attempt_at=None)

        assert service.replay(NotificationRecord.objects.all(), None, "x") == 10


class TestCancel:
    def test_cancelled_notification_is_skipped_and_never_sent(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        service.accept([payload()])

        assert service.cancel(NotificationRecord.objects.all(), None, "not wanted") == 1

        record = NotificationRecord.objects.get()
        assert (record.status, record.last_error_code) == (Status.SKIPPED, "cancelled")
        assert service.retry_due() == 0
        assert memory.requests == []

    def test_sent_notification_cannot_be_cancelled(self, service: NotificationService) -> None:
        service.handle_feishu_requested(payload())

        assert service.cancel(NotificationRecord.objects.all(), None, "too late") == 0
