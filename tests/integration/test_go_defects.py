"""The defects of the Go service that must not return, one promise each."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from notifications import tasks
from notifications.conf import ServiceOptions, service_options
from notifications.delivery.engine import Engine, RetryResult
from notifications.ingest.validation import DedupeConflict
from notifications.models import DeliveryAttempt, NotificationRecord, RejectedRequest
from notifications.providers.base import Endpoint, ProviderError, SendRequest, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.service import HandleResult, NotificationService
from notifications.states import Outcome, Status
from notifications.testing.sandbox.server import Sandbox
from tests.support.delivery import NOW, TRY_LATER, Clock, options_with
from tests.support.payloads import payload

KEY = payload()["dedupe_key"]

pytestmark = pytest.mark.django_db


class Killed(KeyboardInterrupt):
    """Stands for the end of the process: none of our code runs afterwards."""


@pytest.fixture
def service(memory: MemoryProvider, clock: Clock) -> NotificationService:
    return NotificationService(options=options_with(send_slots=1), clock=clock, providers={"feishu": memory})


def accept(service: NotificationService, *keys: str, **changes: Any) -> list[int]:
    """Store one request for each key; return the records' ids."""
    accepted = service.accept([payload(dedupe_key=key, **changes) for key in keys])
    return [item.record_id for item in accepted]


def row(record_id: int | None = None) -> NotificationRecord:
    """Return the record as it is in the table; the only one by default."""
    return NotificationRecord.objects.get(**({"pk": record_id} if record_id else {}))


class TestCrash:
    @pytest.mark.parametrize("moment", ["before the send", "after the send"])
    def test_record_of_a_killed_worker_does_not_stay_in_sending(
        self, memory: MemoryProvider, clock: Clock, moment: str
    ) -> None:
        class DyingProvider(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                if moment == "after the send":
                    super().send(request, endpoint)
                raise Killed

        dying = NotificationService(clock=clock, providers={"feishu": DyingProvider()}, use_redis=False)
        with pytest.raises(Killed):
            dying.handle_feishu_requested(payload())
        assert row().status == Status.SENDING
        alive = NotificationService(clock=clock, providers={"feishu": memory}, use_redis=False)

        clock.forward(seconds=59)
        assert alive.retry_due() == 0  # the lease has not ended
        clock.forward(seconds=1)
        assert alive.retry_due() == 1

        assert (row().status, row().attempt_count, len(memory.requests)) == (Status.SENT, 2, 1)

    def test_worker_killed_in_the_last_attempt_leaves_a_dead_record(self, clock: Clock) -> None:
        class DyingProvider(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                raise Killed

        service = NotificationService(
            options=options_with(max_attempts=1), clock=clock, providers={"feishu": DyingProvider()}, use_redis=False
        )
        with pytest.raises(Killed):
            service.handle_feishu_requested(payload())

        clock.forward(minutes=1)
        service.retry_due()

        assert (row().status, row().last_error_code, row().attempt_count) == (Status.DEAD, "lease_expired", 1)

    def test_response_that_is_not_json_does_not_leave_the_record_in_sending(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        memory.script(
            SendResult(outcome=Outcome.SUCCESS, response_payload={"v": float("nan"), "x": object(), "n": "\x00"})
        )

        service.handle_feishu_requested(payload())

        assert row().status == Status.SENT
        assert (row().provider_response or {})["v"] == "nan"

    def test_exception_in_a_provider_does_not_leave_the_record_in_sending(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        memory.script(ZeroDivisionError())

        service.handle_feishu_requested(payload())

        assert (row().status, row().last_error_code) == (Status.FAILED, "internal_error")

    def test_pending_record_is_sent_by_the_sweep(self, service: NotificationService, memory: MemoryProvider) -> None:
        accept(service, KEY)

        result = service.retry_feishu_notifications()

        assert (result.sent, row().status, len(memory.requests)) == (1, Status.SENT, 1)


class TestDuplicate:
    def test_duplicate_waits_for_the_backoff_and_uses_no_attempt(
        self, service: NotificationService, memory: MemoryProvider, clock: Clock
    ) -> None:
        memory.script(*[TRY_LATER] * 10)
        first = service.handle_feishu_requested(payload())

        for _ in range(8):
            clock.forward(seconds=1)
            again = service.handle_feishu_requested(payload())
            assert (again.status, again.reused, again.delivered) == ("failed", True, False)
            assert (again.attempt_count, again.next_retry_at) == (1, first.next_retry_at)

        assert len(memory.requests) == 1

    def test_duplicate_of_a_sent_message_sends_nothing(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        for _ in range(3):
            service.handle_feishu_requested(payload())

        assert len(memory.requests) == 1

    def test_same_key_of_another_user_is_a_conflict(self, service: NotificationService, memory: MemoryProvider) -> None:
        service.handle_feishu_requested(payload())

        with pytest.raises(DedupeConflict, match="dedupe_key"):
            service.handle_feishu_requested(payload(user_id=43, notification_id=row().pk))

        assert (row().user_id, len(memory.requests)) == (42, 1)

    def test_conflicting_event_of_another_user_is_stored_as_rejected(self, service: NotificationService) -> None:
        service.handle_feishu_requested(payload())

        assert tasks.handle_feishu_requested(payload(user_id=43)) is None

        rejected = RejectedRequest.objects.get()
        assert rejected.errors[0]["field"] == "dedupe_key"
        assert '"user_id": 43' in rejected.payload

    def test_event_with_a_field_name_that_cannot_be_stored_is_kept_as_rejected(self) -> None:
        for number, name in enumerate(["\x00", "\ud800", "", "x" * 100_000], 1):
            assert tasks.handle_feishu_requested(payload(**{name: 1})) is None

            assert RejectedRequest.objects.count() == number, f"field name {name[:9]!r}"


class Gate(MemoryProvider):
    """A provider whose sends wait until the gate is opened."""

    def __init__(self, *answers: SendResult) -> None:
        super().__init__()
        self.script(*answers)
        self.reached, self.open = threading.Event(), threading.Event()

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        answer = super().send(request, endpoint)
        self.reached.set()
        assert self.open.wait(30)
        return answer


class OtherProcess:
    """Runs a function as another process would: in a thread, with a database connection of its own."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.result: object = None
        self._thread = threading.Thread(target=self._run, args=[work])
        self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            self.result = work()
        finally:
            connection.close()

    def join(self) -> object:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.result


@pytest.mark.django_db(transaction=True)
class TestTwoProcesses:
    @pytest.mark.parametrize("use_redis", [True, False])
    def test_sweeps_at_the_same_time_send_each_record_once(self, memory: MemoryProvider, use_redis: bool) -> None:
        accept(NotificationService(), *map(str, range(100)))
        barrier = threading.Barrier(4)

        def sweep() -> int:
            service = NotificationService(
                options=options_with(send_slots=4), providers={"feishu": memory}, use_redis=use_redis
            )
            barrier.wait(30)
            return service.retry_due(limit=1000)

        processes = [OtherProcess(sweep) for _ in range(4)]
        for process in processes:
            process.join()

        assert sorted(request.notification_id for request in memory.requests) == sorted(
            NotificationRecord.objects.values_list("id", flat=True)
        )
        assert NotificationRecord.objects.by_status() == {"sent": 100}

    @pytest.mark.parametrize("use_redis", [True, False])
    def test_same_event_in_several_workers_is_sent_once(self, memory: MemoryProvider, use_redis: bool) -> None:
        barrier = threading.Barrier(4)

        def handle() -> HandleResult:
            service = NotificationService(providers={"feishu": memory}, use_redis=use_redis)
            barrier.wait(30)
            return service.handle_feishu_requested(payload())

        processes = [OtherProcess(handle) for _ in range(4)]
        results = [process.join() for process in processes]

        assert len(memory.requests) == 1
        assert sum(isinstance(result, HandleResult) and result.delivered for result in results) == 1
        assert row().status == Status.SENT

    def test_record_that_another_process_sends_is_not_sent_again(self, memory: MemoryProvider) -> None:
        accept(NotificationService(), KEY)
        gate = Gate()
        slow = OtherProcess(NotificationService(providers={"feishu": gate}).retry_feishu_notifications)
        assert gate.reached.wait(30)

        swept = NotificationService(providers={"feishu": memory}).retry_feishu_notifications()
        handled = NotificationService(
            options=options_with(lock_wait=0.1), providers={"feishu": memory}
        ).handle_feishu_requested(payload())

        gate.open.set()
        slow.join()
        assert (swept.retried, handled.delivered, memory.requests) == (0, False, [])
        assert (row().status, len(gate.requests)) == (Status.SENT, 1)

    def test_expired_lease_is_not_sent_again_while_its_worker_holds_the_key(self, memory: MemoryProvider) -> None:
        accept(NotificationService(), KEY)
        gate = Gate()
        slow = OtherProcess(NotificationService(providers={"feishu": gate}).retry_feishu_notifications)
        assert gate.reached.wait(30)
        late = datetime.now(UTC) + timedelta(hours=1)

        swept = NotificationService(providers={"feishu": memory}).retry_feishu_notifications(now=late)

        gate.open.set()
        slow.join()
        assert (swept.scanned, swept.retried, swept.skipped) == (1, 0, 1)
        assert (row().status, row().attempt_count, memory.requests) == (Status.SENT, 1, [])

    def test_sent_record_stays_sent_when_a_slow_worker_fails(self, memory: MemoryProvider) -> None:
        accept(NotificationService(), KEY)
        gate = Gate(TRY_LATER)
        slow = OtherProcess(NotificationService(providers={"feishu": gate}, use_redis=False).retry_feishu_notifications)
        assert gate.reached.wait(30)
        late = datetime.now(UTC) + timedelta(hours=1)
        NotificationService(providers={"feishu": memory}, use_redis=False).retry_feishu_notifications(now=late)
        assert row().status == Status.SENT

        gate.open.set()
        result = slow.join()

        assert isinstance(result, RetryResult)
        assert (result.retried, result.failed) == (1, 0)
        assert (row().status, row().next_attempt_at) == (Status.SENT, None)
        assert list(row().attempts.values_list("number", "outcome")) == [(1, "temporary_fail"), (2, "success")]

    def test_success_of_a_slow_worker_stops_the_retries(self, memory: MemoryProvider) -> None:
        accept(NotificationService(), KEY)
        gate = Gate()
        slow = OtherProcess(NotificationService(providers={"feishu": gate}, use_redis=False).retry_feishu_notifications)
        assert gate.reached.wait(30)
        late = datetime.now(UTC) + timedelta(hours=1)
        memory.script(TRY_LATER)
        others = NotificationService(providers={"feishu": memory}, use_redis=False)
        others.retry_feishu_notifications(now=late)
        assert row().status == Status.FAILED

        gate.open.set()
        slow.join()

        assert row().status == Status.SENT
        assert others.retry_due(now=late + timedelta(days=1)) == 0


class TestSweep:
    def test_sends_run_at_the_same_time(self, clock: Clock) -> None:
        together = threading.Barrier(8)

        class MeetingProvider(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                together.wait(30)  # passes only when all eight are in flight
                return super().send(request, endpoint)

        service = NotificationService(
            options=options_with(send_slots=10), clock=clock, providers={"feishu": MeetingProvider()}
        )
        accept(service, *map(str, range(8)))

        assert service.retry_feishu_notifications().sent == 8

    @pytest.mark.parametrize("answer", ["hold", "drip"])
    def test_endpoint_that_never_finishes_its_response_takes_limited_time(
        self, change: Callable[..., None], make_user: Callable[..., User], answer: str
    ) -> None:
        with Sandbox() as sandbox:
            sandbox.script("0123456789abcdef0123456789abcdef", answer)
            change(SANDBOX_ORIGINS=[sandbox.origin], READ_TIMEOUT=0.5, TOTAL_TIMEOUT=1)
            user = make_user(webhook_url=f"{sandbox.origin}/flow/api/trigger-webhook/0123456789abcdef0123456789abcdef")
            service = NotificationService()
            accept(service, KEY, user_id=user.pk)
            began = time.monotonic()

            result = service.retry_feishu_notifications()

        assert time.monotonic() - began < service.options.lease / 4
        assert (result.failed, row().last_error_code) == (1, "provider_timeout")

    def test_default_send_timeout_is_shorter_than_the_lease(self) -> None:
        assert ServiceOptions().total_timeout < ServiceOptions().lease

    def test_drain_stops_claiming_after_its_time_budget_and_reports_more_due_records(self) -> None:
        accept(NotificationService(), "a", "b")
        drain = Engine(options=options_with(send_slots=1, drain_budget=0.05), providers={"feishu": SlowProvider()})

        result = drain.deliver_due()

        assert (result.sent, result.has_more) == (1, True)
        assert NotificationRecord.objects.by_status() == {"pending": 1, "sent": 1}

    def test_records_of_another_channel_do_not_block_the_sweep(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        accept(service, *map(str, range(10)))
        NotificationRecord.objects.update(channel="email", next_attempt_at=NOW - timedelta(days=1))
        [record_id] = accept(service, KEY)

        result = service.retry_feishu_notifications(limit=1)

        assert (result.scanned, result.sent, row(record_id).status) == (1, 1, Status.SENT)
        assert set(NotificationRecord.objects.filter(channel="email").values_list("status", "attempt_count")) == {
            ("pending", 0)
        }

    def test_failing_record_does_not_block_the_other_records(
        self, service: NotificationService, memory: MemoryProvider, clock: Clock
    ) -> None:
        poison, *others = accept(service, "poison", "a", "b")
        NotificationRecord.objects.filter(pk=poison).update(next_attempt_at=NOW - timedelta(days=1))
        memory.script(RuntimeError("bug"))

        first = [service.retry_feishu_notifications(limit=1) for _ in range(3)]

        assert [(result.failed, result.sent) for result in first] == [(1, 0), (0, 1), (0, 1)]
        assert {row(other).status for other in others} == {Status.SENT}
        for _ in range(10):
            clock.forward(hours=1)
            memory.script(RuntimeError("bug"))
            service.retry_feishu_notifications()
        assert (row(poison).status, row(poison).attempt_count) == (Status.DEAD, 5)

    def test_result_with_wrong_types_is_stored_and_does_not_block_other_records(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        fields: list[dict[str, Any]] = [{"response_excerpt": None}, {"response_excerpt": b"x"}, {"http_status": "200"}]
        for number, field in enumerate(fields):
            accept(service, f"{number}-wrong", f"{number}-other")
            memory.script(dataclasses.replace(SendResult(outcome=Outcome.SUCCESS), **field))

            assert service.retry_feishu_notifications().sent == 2, str(field)

    def test_due_time_and_retry_time_use_the_same_clock(
        self, service: NotificationService, memory: MemoryProvider, clock: Clock
    ) -> None:
        accept(service, KEY)
        memory.script(TRY_LATER)
        ahead = NOW + timedelta(hours=2)

        first, second = service.retry_due(now=ahead), service.retry_due(now=ahead)

        assert (first, second) == (1, 0)
        assert row().next_attempt_at == ahead + timedelta(seconds=300)
        assert row().updated_at == ahead
        assert DeliveryAttempt.objects.get().started_at <= ahead

    def test_clock_of_this_machine_does_not_make_a_record_due(self, memory: MemoryProvider) -> None:
        service = NotificationService(providers={"feishu": memory})
        accept(service, KEY)
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE notification_records SET next_attempt_at = statement_timestamp() + interval '1 hour'"
            )

        assert service.retry_due() == 0


class SlowProvider(MemoryProvider):
    """A provider whose send takes longer than the time budget of the drain."""

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        threading.Event().wait(0.1)
        return super().send(request, endpoint)


class TestText:
    def test_external_links_in_summary_and_fallback_are_not_sent(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        links = (
            *("https://evil.example", "ｗｗｗ.evil.example", "http：／／evil.example", "https:/\u200b/evil.example"),
            *("w\u200bww.evil.example", "www。evil.example", "http:\\\\evil.example", "evil.example/x"),
            "mailto:a@evil.example",
        )
        for link in links:
            event = payload(dedupe_key=link, summary_text=f"见 {link}", fallback_text=f"或 {link}")
            result = service.handle_feishu_requested(event)

            sent, stored = memory.requests[-1].message_text, row(result.record_id)
            assert sent == f"{service_options().fallback_text}\n/assistant/c-1", link
            assert link not in stored.summary_text + stored.fallback_text

    def test_stored_fallback_with_a_link_is_not_sent(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        accept(service, KEY, summary_text="")
        NotificationRecord.objects.update(fallback_text="见 https://evil.example")

        service.retry_due()

        assert memory.requests[0].message_text == f"{service_options().fallback_text}\n/assistant/c-1"

    def test_path_is_added_if_the_summary_only_contains_a_longer_path(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        for summary in ("点 /assistant/c-12 查看", "见 /x/assistant/c-1", "/assistant/c-1.html"):
            service.handle_feishu_requested(payload(dedupe_key=summary, summary_text=summary))

            assert memory.requests[-1].message_text == f"{summary}\n/assistant/c-1"


class TestAttempts:
    def test_provider_error_with_a_code_keeps_its_code(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        known = SendResult(outcome="", error_code="provider_auth_failed", error_message="bad token")
        memory.script(ProviderError("401", known))

        result = service.handle_feishu_requested(payload())

        assert result.provider_error == "provider_auth_failed"
        assert (row().last_error_code, row().last_error) == ("provider_auth_failed", "bad token")

    def test_provider_error_without_a_code_is_a_network_error_with_its_text(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        memory.script(ProviderError("connection refused"))

        service.handle_feishu_requested(payload())

        assert (row().last_error_code, row().last_error) == ("network_error", "connection refused")

    @pytest.mark.parametrize("limit", [1, 2, 5])
    def test_number_of_sends_never_exceeds_max_attempts(self, memory: MemoryProvider, clock: Clock, limit: int) -> None:
        service = NotificationService(
            options=options_with(max_attempts=limit), clock=clock, providers={"feishu": memory}
        )
        memory.script(*[TRY_LATER] * 20)
        service.handle_feishu_requested(payload())

        for _ in range(10):
            clock.forward(hours=1)
            service.retry_due()
            service.handle_feishu_requested(payload())

        assert len(memory.requests) == limit
        assert (row().status, row().attempt_count) == (Status.DEAD, limit)

    def test_record_without_attempts_left_is_not_sent(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        for status in (Status.PENDING, Status.FAILED):
            [record_id] = accept(service, str(status))
            NotificationRecord.objects.filter(pk=record_id).update(status=status, attempt_count=5, max_attempts=5)

            result = service.retry_feishu_notifications()

            assert (result.dead, result.retried, memory.requests) == (1, 0, []), str(status)
            stored = row(record_id)
            assert (stored.status, stored.last_error_code, stored.attempt_count) == ("dead", "attempts_exhausted", 5)
