"""The Python API, and the Celery tasks that other apps and beat call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery.exceptions import Reject
from django.db import OperationalError, transaction

from notifications import tasks
from notifications.api import request_notification, request_notifications
from notifications.broker.nudge import NUDGE_KEY, mark_nudge_received, nudge
from notifications.broker.redis_client import gateway
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

    def test_delivers_and_returns_the_result(self, provider: MemoryProvider) -> None:
        result = self.handle(payload(event_version="1"))

        assert (result["status"], result["delivered"], len(provider.requests)) == ("sent", True, 1)

    def test_payload_can_be_a_keyword_argument(self, provider: MemoryProvider) -> None:
        assert self.handle(payload=payload())["status"] == "sent"

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
        assert len(provider.requests) == 1

    def test_message_is_requeued_while_the_database_is_unavailable(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def raise_operational_error(*args: object, **kwargs: object) -> None:
            raise OperationalError

        monkeypatch.setattr(tasks, "REQUEUE_DELAY_SECONDS", 0)
        for method in ("handle_feishu_requested", "reject"):
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

        monkeypatch.setattr(tasks, "mark_nudge_received", arrive_late)

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
