"""The two entrances: code in the project, and messages from other Celery apps."""

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
    def test_a_committed_request_is_stored_and_nudged_once(self) -> None:
        with transaction.atomic():
            first = request_notification(payload())
            request_notification(payload(dedupe_key="second"))
            assert purge_queue("deliver") == 0

        assert purge_queue("deliver") == 1
        assert NotificationRecord.objects.filter(pk=first.record_id, status="pending").exists()

    def test_the_channel_names_the_provider(self) -> None:
        first = request_notification(payload(), channel="email")
        [second] = request_notifications([payload()], channel="webhook")
        third = request_notification(payload())

        channels = dict(NotificationRecord.objects.values_list("pk", "channel"))
        assert channels == {first.record_id: "email", second.record_id: "webhook", third.record_id: "feishu"}

    def test_a_channel_without_a_provider_is_refused_by_name(self, provider: MemoryProvider) -> None:
        for channel in ("pigeon", "email", ""):
            with pytest.raises(InvalidNotification) as refused:
                request_notification(payload(), channel=channel)

            assert str(refused.value) == "channel: has no provider; known: feishu"
        assert not NotificationRecord.objects.exists()

    def test_what_rolls_back_was_never_asked_for(self) -> None:
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            request_notification(payload())
            raise ZeroDivisionError

        assert not NotificationRecord.objects.exists()
        assert purge_queue("deliver") == 0

    def test_a_duplicate_is_answered_and_nudges_nobody(self) -> None:
        first = request_notification(payload())
        purge_queue("deliver")
        mark_nudge_received()

        again = request_notification(payload())

        assert (again.record_id, again.reused) == (first.record_id, True)
        assert purge_queue("deliver") == 0

    def test_a_refusal_leaves_the_callers_transaction_usable(self) -> None:
        with transaction.atomic():
            with pytest.raises(InvalidNotification, match="user_id"):
                request_notification(payload(user_id="42"))
            request_notification(payload())
            with pytest.raises(DedupeConflict):
                request_notification(payload(user_id=43))

        assert NotificationRecord.objects.count() == 1

    def test_many_at_once(self) -> None:
        accepted = request_notifications(payload(dedupe_key=f"k{number}") for number in range(3))

        assert [one.reused for one in accepted] == [False] * 3
        assert purge_queue("deliver") == 1

    def test_redis_away_does_not_fail_the_request(self, change: Callable[..., None]) -> None:
        change(REDIS_URL="redis://127.0.0.1:1/0")
        gateway.cache_clear()

        with transaction.atomic():
            request_notification(payload())

        assert NotificationRecord.objects.count() == 1

    def test_a_broker_that_fails_does_not_fail_the_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*args: str) -> None:
            raise ConnectionResetError

        monkeypatch.setattr("notifications.broker.nudge._publish", fail)

        request_notification(payload())

        assert NotificationRecord.objects.count() == 1


class TestNudge:
    def test_one_message_stands_for_many_until_a_drain_starts(self) -> None:
        assert [nudge(), nudge(), nudge()] == [True, False, False]
        assert purge_queue("deliver") == 1

        mark_nudge_received()

        assert nudge()

    def test_a_lost_nudge_is_forgotten_after_its_time(self, change: Callable[..., None]) -> None:
        change(NUDGE_TTL=15)
        nudge()

        left = gateway().run(lambda client: client.pttl(gateway().key(NUDGE_KEY)))

        assert isinstance(left, int)
        assert 0 < left <= 15_000


@pytest.mark.django_db
class TestEventTask:
    def handle(self, *args: Any, **kwargs: Any) -> Any:
        return tasks.handle_feishu_requested.run(*args, **kwargs)

    def test_delivers_and_returns_the_result(self, provider: MemoryProvider) -> None:
        result = self.handle(payload(event_version="1"))

        assert (result["status"], result["delivered"], len(provider.requests)) == ("sent", True, 1)

    def test_takes_the_payload_by_name_too(self, provider: MemoryProvider) -> None:
        assert self.handle(payload=payload())["status"] == "sent"

    @pytest.mark.parametrize(
        ("args", "fields"),
        [
            ([payload(user_id=0, target_url="//evil")], ["user_id", "target_url"]),
            ([payload(event_version="2")], ["event_version"]),
            ([payload(surprise=1)], ["surprise"]),
            (["not an object"], ["payload"]),
            ([payload(summary_text="x" * 1_000_000)], ["payload"]),
            ([], ["payload"]),
            ([payload(), "more"], ["payload"]),
        ],
    )
    def test_what_cannot_be_accepted_is_kept_with_its_reasons(
        self, provider: MemoryProvider, args: list[Any], fields: list[str]
    ) -> None:
        assert self.handle(*args) is None

        rejected = RejectedRequest.objects.get()
        assert (rejected.source, provider.requests) == ("notification.feishu.requested", [])
        assert [item["field"] for item in rejected.errors] == fields

    def test_a_key_of_another_user_is_kept(self, provider: MemoryProvider) -> None:
        self.handle(payload())

        self.handle(payload(user_id=43))

        assert RejectedRequest.objects.get().errors[0]["field"] == "dedupe_key"
        assert len(provider.requests) == 1

    def test_while_the_database_is_away_the_message_goes_back(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*args: object, **kwargs: object) -> None:
            raise OperationalError

        monkeypatch.setattr(tasks, "REQUEUE_DELAY_SECONDS", 0)
        for entrance in ("handle_feishu_requested", "reject"):
            monkeypatch.setattr(f"notifications.service.NotificationService.{entrance}", away)
            with pytest.raises(Reject) as rejected:
                self.handle(payload(), *([] if entrance != "reject" else ["too many"]))
            assert rejected.value.requeue  # type: ignore[attr-defined]


@pytest.mark.django_db
class TestDrainTask:
    def test_delivers_what_is_due_and_lets_the_next_nudge_through(self, provider: MemoryProvider) -> None:
        request_notifications(payload(dedupe_key=f"k{number}") for number in range(3))
        nudge()

        tasks.deliver_due.run()

        assert NotificationRecord.objects.by_status() == {"sent": 3}
        assert nudge()

    def test_a_backlog_calls_further_workers(self, provider: MemoryProvider, change: Callable[..., None]) -> None:
        change(SEND_SLOTS=2, PROVIDERS=MEMORY)
        request_notifications(payload(dedupe_key=f"k{number}") for number in range(5))

        tasks.deliver_due.run()

        assert purge_queue("deliver") == 1

    def test_what_is_asked_for_while_a_drain_begins_is_not_overlooked(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
    ) -> None:
        change(PROVIDERS=MEMORY)
        nudge()

        def arrive_late() -> None:
            request_notification(payload())  # queues no nudge, since one is on its way still
            mark_nudge_received()

        monkeypatch.setattr(tasks, "mark_nudge_received", arrive_late)

        tasks.deliver_due.run()

        assert NotificationRecord.objects.by_status() == {"sent": 1}
        assert purge_queue("deliver") == 1

    def test_a_worker_that_is_to_stop_hands_its_nudge_on(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
    ) -> None:
        change(PROVIDERS=MEMORY)
        request_notification(payload())
        purge_queue("deliver")
        monkeypatch.setattr(tasks._stopping, "is_set", lambda: True)

        tasks.deliver_due.run()

        assert NotificationRecord.objects.by_status() == {"pending": 1}
        assert purge_queue("deliver") == 1

    def test_a_drain_that_was_stopped_early_asks_for_another(
        self, provider: MemoryProvider, monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
    ) -> None:
        change(SEND_SLOTS=2, PROVIDERS=MEMORY)
        request_notifications(payload(dedupe_key=f"k{number}") for number in range(5))
        monkeypatch.setattr(tasks._stopping, "is_set", lambda: bool(NotificationRecord.objects.filter(status="sent")))

        tasks.deliver_due.run()

        # This stop looks at what is settled, and a backlog's successes are settled behind the next claim.
        assert NotificationRecord.objects.by_status() == {"sent": 4, "pending": 1}
        assert purge_queue("deliver") == 1
