"""The Python API, and the Celery tasks that other apps and beat call."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import Reject
from django.db import OperationalError, connection, transaction

from notifications import tasks
from notifications.api import request_notification, request_notifications
from notifications.broker.nudge import NUDGE_KEY, mark_nudge_received, nudge
from notifications.broker.redis_client import gateway
from notifications.conf import service_options
from notifications.delivery import process_drain
from notifications.delivery.locks import Locks, lock_key, lock_ttl
from notifications.ingest.validation import DedupeConflict, InvalidNotification
from notifications.models import NotificationRecord, RejectedRequest
from notifications.providers import get_provider
from notifications.providers.memory import MemoryProvider
from tests.support.broker_queues import purge_queue
from tests.support.payloads import payload

MEMORY = {"feishu": "notifications.providers.memory.MemoryProvider"}


@pytest.fixture
def provider(change: Callable[..., None]) -> MemoryProvider:
    change(PROVIDERS=MEMORY)
    configured = get_provider("feishu")
    assert isinstance(configured, MemoryProvider)
    return configured


class Undone(Exception):
    """Rolls a savepoint back."""


@pytest.fixture(autouse=True)
def _empty_queues() -> None:
    purge_queue("deliver")
    purge_queue("notifications")


@pytest.mark.django_db(transaction=True)
class TestApi:
    def test_committed_requests_are_stored_with_one_nudge(self) -> None:
        with transaction.atomic():
            first = request_notification(payload())
            request_notification(payload(dedupe_key="second"))
            assert purge_queue("deliver") == 0

        assert purge_queue("deliver") == 1
        assert NotificationRecord.objects.filter(pk=first.record_id, status="pending").exists()

    def test_many_requests_of_a_transaction_plan_one_nudge(self) -> None:
        with transaction.atomic():
            for number in range(20):
                request_notification(payload(dedupe_key=f"k{number}"))
                with transaction.atomic():
                    request_notification(payload(dedupe_key=f"in a savepoint{number}"))

            assert len(connection.run_on_commit) == 1

    def test_a_savepoint_that_is_rolled_back_takes_no_needed_nudge_along(self) -> None:
        with transaction.atomic():
            with contextlib.suppress(Undone), transaction.atomic():
                request_notification(payload(dedupe_key="undone"))
                raise Undone
            request_notification(payload(dedupe_key="kept"))

        assert purge_queue("deliver") == 1

    def test_a_request_in_a_savepoint_that_is_rolled_back_nudges_nobody(self) -> None:
        with transaction.atomic(), contextlib.suppress(Undone), transaction.atomic():
            request_notification(payload(dedupe_key="undone"))
            raise Undone

        assert purge_queue("deliver") == 0

    def test_channel_argument_selects_the_channel(self) -> None:
        first = request_notification(payload(), channel="email")
        [second] = request_notifications([payload()], channel="webhook")
        third = request_notification(payload())

        channels = dict(NotificationRecord.objects.values_list("pk", "channel"))
        assert channels == {first.record_id: "email", second.record_id: "webhook", third.record_id: "feishu"}

    def test_channel_without_provider_is_rejected_with_field_name(self, provider: MemoryProvider) -> None:
        for channel in ("pigeon", "email", ""):
            with pytest.raises(InvalidNotification) as refused:
                request_notification(payload(), channel=channel)

            assert str(refused.value) == "channel: has no provider; known: feishu"
        assert not NotificationRecord.objects.exists()

    def test_rolled_back_request_is_neither_stored_nor_nudged(self) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            request_notification(payload())
            raise ZeroDivisionError

        assert not NotificationRecord.objects.exists()
        assert purge_queue("deliver") == 0

    def test_duplicate_returns_the_record_without_a_nudge(self) -> None:
        first = request_notification(payload())
        purge_queue("deliver")
        mark_nudge_received()

        duplicate = request_notification(payload())

        assert (duplicate.record_id, duplicate.reused) == (first.record_id, True)
        assert purge_queue("deliver") == 0

    def test_rejected_request_leaves_the_callers_transaction_usable(self) -> None:
        with transaction.atomic():
            with pytest.raises(InvalidNotification, match="user_id"):
                request_notification(payload(user_id="42"))
            request_notification(payload())
            with pytest.raises(DedupeConflict):
                request_notification(payload(user_id=43))

        assert NotificationRecord.objects.count() == 1

    def test_bulk_request_sends_one_nudge(self) -> None:
        accepted = request_notifications(payload(dedupe_key=f"k{number}") for number in range(3))

        assert [result.reused for result in accepted] == [False] * 3
        assert purge_queue("deliver") == 1

    def test_request_succeeds_while_redis_is_unavailable(self, change: Callable[..., None]) -> None:
        change(REDIS_URL="redis://127.0.0.1:1/0")
        gateway.cache_clear()

        with transaction.atomic():
            request_notification(payload())

        assert NotificationRecord.objects.count() == 1

    def test_request_succeeds_while_the_broker_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: str) -> None:
            raise ConnectionResetError

        monkeypatch.setattr("notifications.broker.nudge._publish", fail)

        request_notification(payload())

        assert NotificationRecord.objects.count() == 1


@pytest.mark.django_db(transaction=True)
class TestNudge:
    def test_further_nudges_are_suppressed_until_a_drain_starts(self) -> None:
        assert [nudge(), nudge(), nudge()] == [True, False, False]
        assert purge_queue("deliver") == 1

        mark_nudge_received()

        assert nudge()

    def test_nudge_key_expires_after_nudge_ttl(self, change: Callable[..., None]) -> None:
        change(NUDGE_TTL=15)
        nudge()

        ttl_ms = gateway().run(lambda client: client.pttl(gateway().key(NUDGE_KEY)))

        assert isinstance(ttl_ms, int)
        assert 0 < ttl_ms <= 15_000


@pytest.mark.django_db
class TestEventTask:
    def handle(self, *args: Any, **kwargs: Any) -> Any:
        return tasks.handle_feishu_requested.run(*args, **kwargs)

    def test_event_is_stored_and_returned_as_stored_without_a_send(self, provider: MemoryProvider) -> None:
        result = self.handle(payload(event_version="1"))

        record = NotificationRecord.objects.get()
        assert result == {
            "record_id": record.pk,
            "status": "pending",
            "reused": False,
            "delivered": False,
            "fallback_used": False,
            "attempt_count": 0,
            "next_retry_at": None,
            "provider_error": "",
        }
        assert (record.status, record.attempt_count, provider.requests) == ("pending", 0, [])

    def test_duplicate_event_returns_the_state_of_the_existing_record(self, provider: MemoryProvider) -> None:
        first = self.handle(payload())
        tasks.deliver_due.run()

        again = self.handle(payload(summary_text="other words"))

        assert (again["record_id"], again["status"], again["reused"]) == (first["record_id"], "sent", True)
        assert (again["delivered"], again["attempt_count"], len(provider.requests)) == (False, 1, 1)

    def test_one_nudge_is_queued_for_an_event_after_its_commit(
        self, provider: MemoryProvider, django_capture_on_commit_callbacks: Any
    ) -> None:
        purge_queue("deliver")

        with django_capture_on_commit_callbacks() as callbacks:
            self.handle(payload())
            assert purge_queue("deliver") == 0
        assert len(callbacks) == 1
        callbacks[0]()

        assert purge_queue("deliver") == 1

    def test_event_without_a_nudge_is_delivered_by_the_sweep(
        self, provider: MemoryProvider, change: Callable[..., None], django_capture_on_commit_callbacks: Any
    ) -> None:
        change(NUDGE="none", PROVIDERS=MEMORY)
        with django_capture_on_commit_callbacks(execute=True):
            record = self.handle(payload())["record_id"]
        assert purge_queue("deliver") == 0

        tasks.deliver_due.run()

        assert NotificationRecord.objects.get(pk=record).status == "sent"

    def test_event_waits_for_no_process_that_holds_its_key(self, change: Callable[..., None]) -> None:
        change(LOCK_WAIT=3600, PROVIDERS=MEMORY)
        locks = Locks(gateway(), ttl=lock_ttl(service_options()))
        assert locks.wait_for(lock_key("feishu", payload()["dedupe_key"]), timeout=0)

        assert self.handle(payload())["status"] == "pending"

    def test_payload_can_be_a_keyword_argument(self, provider: MemoryProvider) -> None:
        assert self.handle(payload=payload())["status"] == "pending"

    def test_invalid_payload_is_stored_with_field_errors(
        self, provider: MemoryProvider, subtests: pytest.Subtests
    ) -> None:
        cases: list[tuple[list[Any], list[str]]] = [
            ([payload(user_id=0, target_url="//evil")], ["user_id", "target_url"]),
            ([payload(event_version="2")], ["event_version"]),
            ([payload(surprise=1)], ["surprise"]),
            (["not an object"], ["payload"]),
            ([payload(summary_text="x" * 1_000_000)], ["payload"]),
            ([], ["payload"]),
            ([payload(), "more"], ["payload"]),
        ]
        for args, fields in cases:
            with subtests.test(args=args, fields=fields):
                RejectedRequest.objects.all().delete()
                assert self.handle(*args) is None

                rejected = RejectedRequest.objects.get()
                assert (rejected.source, provider.requests) == ("notification.feishu.requested", [])
                assert [item["field"] for item in rejected.errors] == fields

    def test_event_with_dedupe_key_of_another_user_is_stored_as_rejected(self, provider: MemoryProvider) -> None:
        self.handle(payload())

        self.handle(payload(user_id=43))

        assert RejectedRequest.objects.get().errors[0]["field"] == "dedupe_key"
        assert NotificationRecord.objects.get().user_id == 42

    def test_message_is_requeued_while_the_database_is_unavailable(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def raise_operational_error(*args: object, **kwargs: object) -> None:
            raise OperationalError

        monkeypatch.setattr(tasks, "REQUEUE_DELAY_SECONDS", 0)
        for method in ("accept", "reject"):
            monkeypatch.setattr(f"notifications.service.NotificationService.{method}", raise_operational_error)
            with pytest.raises(Reject) as rejected:
                self.handle(payload(), *([] if method != "reject" else ["too many"]))
            assert rejected.value.requeue  # type: ignore[attr-defined]


@pytest.mark.django_db
class TestDrainTask:
    def test_due_records_are_delivered_and_next_nudge_is_published(self, provider: MemoryProvider) -> None:
        request_notifications(payload(dedupe_key=f"k{number}") for number in range(3))
        nudge()

        tasks.deliver_due.run()

        assert NotificationRecord.objects.by_status() == {"sent": 3}
        assert nudge()

    def test_backlog_wakes_another_worker(self, provider: MemoryProvider, change: Callable[..., None]) -> None:
        change(SEND_SLOTS=2, PROVIDERS=MEMORY)
        request_notifications(payload(dedupe_key=f"k{number}") for number in range(5))

        tasks.deliver_due.run()

        assert purge_queue("deliver") == 1

    def test_request_stored_while_a_drain_starts_is_delivered(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
    ) -> None:
        change(PROVIDERS=MEMORY)
        nudge()

        def arrive_late() -> None:
            request_notification(payload())  # publishes no nudge, because one is queued already
            mark_nudge_received()

        monkeypatch.setattr(process_drain, "mark_nudge_received", arrive_late)

        tasks.deliver_due.run()

        assert NotificationRecord.objects.by_status() == {"sent": 1}
        assert purge_queue("deliver") == 1

    def test_stopping_worker_publishes_the_nudge_again(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
    ) -> None:
        change(PROVIDERS=MEMORY)
        request_notification(payload())
        purge_queue("deliver")
        monkeypatch.setattr(tasks._stopping, "is_set", lambda: True)

        tasks.deliver_due.run()

        assert NotificationRecord.objects.by_status() == {"pending": 1}
        assert purge_queue("deliver") == 1

    def test_drain_stopped_early_publishes_a_nudge(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
    ) -> None:
        change(SEND_SLOTS=2, PROVIDERS=MEMORY)
        request_notifications(payload(dedupe_key=f"k{number}") for number in range(5))
        monkeypatch.setattr(tasks._stopping, "is_set", lambda: bool(NotificationRecord.objects.filter(status="sent")))

        tasks.deliver_due.run()

        # The stop condition reads settled records. Under a backlog, successes are settled after the next claim.
        assert NotificationRecord.objects.by_status() == {"sent": 4, "pending": 1}
        assert purge_queue("deliver") == 1
