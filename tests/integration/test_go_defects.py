"""The defects of the Go service that must not come back, one promise each."""

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
from tests.conftest import payload

NOW = datetime(2026, 5, 1, 8, tzinfo=UTC)
LATER = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx", error_message="HTTP 503")
KEY = payload()["dedupe_key"]

pytestmark = pytest.mark.django_db


class Clock:
    """A clock that moves when told."""

    now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **delta: float) -> None:
        self.now += timedelta(**delta)


class Killed(BaseException):
    """Stands for the end of the process: no code of ours runs any more."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


def options(**changes: Any) -> ServiceOptions:
    return dataclasses.replace(service_options(), **changes)


@pytest.fixture
def service(memory: MemoryProvider, clock: Clock) -> NotificationService:
    return NotificationService(options=options(send_slots=1), clock=clock, providers={"feishu": memory})


def accept(service: NotificationService, *keys: str, **changes: Any) -> list[int]:
    """Store one request for each key; return the records' ids."""
    accepted = service.accept([payload(dedupe_key=key, **changes) for key in keys])
    return [one.record_id for one in accepted]


def row(record_id: int | None = None) -> NotificationRecord:
    """Return the record as it is in the table; the only one by default."""
    return NotificationRecord.objects.get(**({"pk": record_id} if record_id else {}))


class TestCrash:
    @pytest.mark.parametrize("moment", ["before the send", "after the send"])
    def test_a_record_whose_worker_died_does_not_stay_in_sending(
        self, memory: MemoryProvider, clock: Clock, moment: str
    ) -> None:
        class Dying(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                if moment == "after the send":
                    super().send(request, endpoint)
                raise Killed

        dying = NotificationService(clock=clock, providers={"feishu": Dying()}, use_redis=False)
        with pytest.raises(Killed):
            dying.handle_feishu_requested(payload())
        assert row().status == Status.SENDING
        alive = NotificationService(clock=clock, providers={"feishu": memory}, use_redis=False)

        clock.forward(seconds=59)
        assert alive.retry_due() == 0  # the lease may still be somebody's
        clock.forward(seconds=1)
        assert alive.retry_due() == 1

        assert (row().status, row().attempt_count, len(memory.requests)) == (Status.SENT, 2, 1)

    def test_a_worker_that_died_on_the_last_attempt_leaves_a_dead_record_not_one_in_sending(self, clock: Clock) -> None:
        class Dying(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                raise Killed

        service = NotificationService(
            options=options(max_attempts=1), clock=clock, providers={"feishu": Dying()}, use_redis=False
        )
        with pytest.raises(Killed):
            service.handle_feishu_requested(payload())

        clock.forward(minutes=1)
        service.retry_due()

        assert (row().status, row().last_error_code, row().attempt_count) == (Status.DEAD, "lease_expired", 1)

    def test_an_answer_that_is_no_json_does_not_leave_the_record_in_sending(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        memory.script(
            SendResult(outcome=Outcome.SUCCESS, response_payload={"v": float("nan"), "x": object(), "n": "\x00"})
        )

        service.handle_feishu_requested(payload())

        assert row().status == Status.SENT
        assert (row().provider_response or {})["v"] == "nan"

    def test_a_provider_that_raises_does_not_leave_the_record_in_sending(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        memory.script(ZeroDivisionError())

        service.handle_feishu_requested(payload())

        assert (row().status, row().last_error_code) == (Status.FAILED, "internal_error")

    def test_a_pending_record_whose_worker_never_came_is_swept(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        accept(service, KEY)

        result = service.retry_feishu_notifications()

        assert (result.sent, row().status, len(memory.requests)) == (1, Status.SENT, 1)


class TestDuplicate:
    def test_a_duplicate_waits_for_the_backoff_and_burns_no_attempt(
        self, service: NotificationService, memory: MemoryProvider, clock: Clock
    ) -> None:
        memory.script(*[LATER] * 10)
        first = service.handle_feishu_requested(payload())

        for _ in range(8):
            clock.forward(seconds=1)
            again = service.handle_feishu_requested(payload())
            assert (again.status, again.reused, again.delivered) == ("failed", True, False)
            assert (again.attempt_count, again.next_retry_at) == (1, first.next_retry_at)

        assert len(memory.requests) == 1

    def test_a_duplicate_of_a_sent_one_sends_nothing(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        for _ in range(3):
            service.handle_feishu_requested(payload())

        assert len(memory.requests) == 1

    def test_another_users_event_with_the_same_key_is_a_conflict(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        service.handle_feishu_requested(payload())

        with pytest.raises(DedupeConflict, match="dedupe_key"):
            service.handle_feishu_requested(payload(user_id=43, notification_id=row().pk))

        assert (row().user_id, len(memory.requests)) == (42, 1)

    def test_another_users_event_is_kept_as_rejected_and_not_swallowed(self, service: NotificationService) -> None:
        service.handle_feishu_requested(payload())

        assert tasks.handle_feishu_requested(payload(user_id=43)) is None

        rejected = RejectedRequest.objects.get()
        assert rejected.errors[0]["field"] == "dedupe_key"
        assert '"user_id": 43' in rejected.payload

    @pytest.mark.parametrize("name", ["\x00", "\ud800", "", "x" * 100_000])
    def test_an_event_that_is_refused_for_an_odd_name_is_kept_too(self, name: str) -> None:
        assert tasks.handle_feishu_requested(payload(**{name: 1})) is None

        assert RejectedRequest.objects.count() == 1


class Gate(MemoryProvider):
    """Keeps its sends waiting until it is opened."""

    def __init__(self, *answers: SendResult) -> None:
        super().__init__()
        self.script(*answers)
        self.reached, self.open = threading.Event(), threading.Event()

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        answer = super().send(request, endpoint)
        self.reached.set()
        assert self.open.wait(30)
        return answer


class Elsewhere:
    """Runs something as another process would: in a thread, on a database connection of its own."""

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
    def test_two_sweeps_at_once_send_each_record_once(self, memory: MemoryProvider, use_redis: bool) -> None:
        accept(NotificationService(), *map(str, range(100)))
        barrier = threading.Barrier(4)

        def sweep() -> int:
            service = NotificationService(
                options=options(send_slots=4), providers={"feishu": memory}, use_redis=use_redis
            )
            barrier.wait(30)
            return service.retry_due(limit=1000)

        others = [Elsewhere(sweep) for _ in range(4)]
        for other in others:
            other.join()

        assert sorted(request.notification_id for request in memory.requests) == sorted(
            NotificationRecord.objects.values_list("id", flat=True)
        )
        assert NotificationRecord.objects.by_status() == {"sent": 100}

    @pytest.mark.parametrize("use_redis", [True, False])
    def test_the_same_event_at_two_workers_is_sent_once(self, memory: MemoryProvider, use_redis: bool) -> None:
        barrier = threading.Barrier(4)

        def handle() -> HandleResult:
            service = NotificationService(providers={"feishu": memory}, use_redis=use_redis)
            barrier.wait(30)
            return service.handle_feishu_requested(payload())

        others = [Elsewhere(handle) for _ in range(4)]
        results = [other.join() for other in others]

        assert len(memory.requests) == 1
        assert sum(isinstance(result, HandleResult) and result.delivered for result in results) == 1
        assert row().status == Status.SENT

    def test_a_record_in_another_process_hands_is_not_sent_again(self, memory: MemoryProvider) -> None:
        accept(NotificationService(), KEY)
        gate = Gate()
        slow = Elsewhere(NotificationService(providers={"feishu": gate}).retry_feishu_notifications)
        assert gate.reached.wait(30)

        swept = NotificationService(providers={"feishu": memory}).retry_feishu_notifications()
        handled = NotificationService(
            options=options(lock_wait=0.1), providers={"feishu": memory}
        ).handle_feishu_requested(payload())

        gate.open.set()
        slow.join()
        assert (swept.retried, handled.delivered, memory.requests) == (0, False, [])
        assert (row().status, len(gate.requests)) == (Status.SENT, 1)

    def test_an_expired_lease_is_not_sent_again_while_its_worker_holds_the_key(self, memory: MemoryProvider) -> None:
        accept(NotificationService(), KEY)
        gate = Gate()
        slow = Elsewhere(NotificationService(providers={"feishu": gate}).retry_feishu_notifications)
        assert gate.reached.wait(30)
        late = datetime.now(UTC) + timedelta(hours=1)

        swept = NotificationService(providers={"feishu": memory}).retry_feishu_notifications(now=late)

        gate.open.set()
        slow.join()
        assert (swept.scanned, swept.retried, swept.skipped) == (1, 0, 1)
        assert (row().status, row().attempt_count, memory.requests) == (Status.SENT, 1, [])

    def test_sent_does_not_turn_back_when_a_slow_worker_fails(self, memory: MemoryProvider) -> None:
        accept(NotificationService(), KEY)
        gate = Gate(LATER)
        slow = Elsewhere(NotificationService(providers={"feishu": gate}, use_redis=False).retry_feishu_notifications)
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

    def test_a_slow_workers_success_stops_the_retries_of_the_others(self, memory: MemoryProvider) -> None:
        accept(NotificationService(), KEY)
        gate = Gate()
        slow = Elsewhere(NotificationService(providers={"feishu": gate}, use_redis=False).retry_feishu_notifications)
        assert gate.reached.wait(30)
        late = datetime.now(UTC) + timedelta(hours=1)
        memory.script(LATER)
        others = NotificationService(providers={"feishu": memory}, use_redis=False)
        others.retry_feishu_notifications(now=late)
        assert row().status == Status.FAILED

        gate.open.set()
        slow.join()

        assert row().status == Status.SENT
        assert others.retry_due(now=late + timedelta(days=1)) == 0


class TestSweep:
    def test_sends_side_by_side_and_not_one_after_the_other(self, clock: Clock) -> None:
        together = threading.Barrier(8)

        class Meeting(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                together.wait(30)  # passes only when all eight are in flight
                return super().send(request, endpoint)

        service = NotificationService(options=options(send_slots=8), clock=clock, providers={"feishu": Meeting()})
        accept(service, *map(str, range(8)))

        assert service.retry_feishu_notifications().sent == 8

    @pytest.mark.parametrize("answer", ["hold", "drip"])
    def test_an_endpoint_that_never_ends_its_answer_costs_a_bounded_time(
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

    def test_by_default_no_send_can_take_longer_than_its_lease(self) -> None:
        assert ServiceOptions().total_timeout < ServiceOptions().lease

    def test_stops_claiming_when_its_time_is_spent_and_says_that_there_is_more(self) -> None:
        accept(NotificationService(), "a", "b")
        drain = Engine(options=options(send_slots=1, drain_budget=0.05), providers={"feishu": Slow()})

        result = drain.deliver_due()

        assert (result.sent, result.has_more) == (1, True)
        assert NotificationRecord.objects.by_status() == {"pending": 1, "sent": 1}

    def test_rows_of_another_channel_starve_nobody(self, service: NotificationService, memory: MemoryProvider) -> None:
        accept(service, *map(str, range(10)))
        NotificationRecord.objects.update(channel="email", next_attempt_at=NOW - timedelta(days=1))
        [mine] = accept(service, KEY)

        result = service.retry_feishu_notifications(limit=1)

        assert (result.scanned, result.sent, row(mine).status) == (1, 1, Status.SENT)
        assert set(NotificationRecord.objects.filter(channel="email").values_list("status", "attempt_count")) == {
            ("pending", 0)
        }

    def test_a_poison_row_starves_nobody_and_does_not_come_first_for_ever(
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

    @pytest.mark.parametrize("odd", [{"response_excerpt": None}, {"response_excerpt": b"x"}, {"http_status": "200"}])
    def test_a_result_of_odd_types_is_stored_and_starves_nobody(
        self, service: NotificationService, memory: MemoryProvider, odd: dict[str, Any]
    ) -> None:
        accept(service, "a", "b")
        memory.script(dataclasses.replace(SendResult(outcome=Outcome.SUCCESS), **odd))

        assert service.retry_feishu_notifications().sent == 2

    def test_what_is_due_and_when_it_is_tried_again_is_told_by_one_clock(
        self, service: NotificationService, memory: MemoryProvider, clock: Clock
    ) -> None:
        accept(service, KEY)
        memory.script(LATER)
        ahead = NOW + timedelta(hours=2)

        first, second = service.retry_due(now=ahead), service.retry_due(now=ahead)

        assert (first, second) == (1, 0)
        assert row().next_attempt_at == ahead + timedelta(seconds=300)
        assert row().updated_at == ahead
        assert DeliveryAttempt.objects.get().started_at <= ahead

    def test_the_clock_of_this_machine_makes_no_row_due(self, memory: MemoryProvider) -> None:
        service = NotificationService(providers={"feishu": memory})
        accept(service, KEY)
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE notification_records SET next_attempt_at = statement_timestamp() + interval '1 hour'"
            )

        assert service.retry_due() == 0


class Slow(MemoryProvider):
    """An endpoint that takes longer than the drain's budget."""

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        threading.Event().wait(0.1)
        return super().send(request, endpoint)


class TestText:
    @pytest.mark.parametrize(
        "link",
        [
            *("https://evil.example", "ｗｗｗ.evil.example", "http：／／evil.example", "https:/\u200b/evil.example"),
            *(
                "w\u200bww.evil.example",
                "www。evil.example",
                "http:\\\\evil.example",
                "evil.example/x",
                "mailto:a@evil.example",
            ),
        ],
    )
    def test_no_external_link_gets_to_a_user_in_summary_or_fallback(
        self, service: NotificationService, memory: MemoryProvider, link: str
    ) -> None:
        service.handle_feishu_requested(payload(summary_text=f"见 {link}", fallback_text=f"或 {link}"))

        [request] = memory.requests
        assert request.message_text == f"{service_options().fallback_text}\n/assistant/c-1"
        assert link not in row().summary_text + row().fallback_text

    def test_a_fallback_that_was_stored_with_a_link_is_not_sent(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        accept(service, KEY, summary_text="")
        NotificationRecord.objects.update(fallback_text="见 https://evil.example")

        service.retry_due()

        assert memory.requests[0].message_text == f"{service_options().fallback_text}\n/assistant/c-1"

    @pytest.mark.parametrize("summary", ["点 /assistant/c-12 查看", "见 /x/assistant/c-1", "/assistant/c-1.html"])
    def test_the_path_is_added_though_it_is_part_of_another(
        self, service: NotificationService, memory: MemoryProvider, summary: str
    ) -> None:
        service.handle_feishu_requested(payload(summary_text=summary))

        assert memory.requests[0].message_text == f"{summary}\n/assistant/c-1"


class TestAttempts:
    def test_an_error_with_a_useful_code_keeps_it(self, service: NotificationService, memory: MemoryProvider) -> None:
        told = SendResult(outcome="", error_code="provider_auth_failed", error_message="bad token")
        memory.script(ProviderError("401", told))

        result = service.handle_feishu_requested(payload())

        assert result.provider_error == "provider_auth_failed"
        assert (row().last_error_code, row().last_error) == ("provider_auth_failed", "bad token")

    def test_an_error_without_a_code_is_a_network_error_and_keeps_its_text(
        self, service: NotificationService, memory: MemoryProvider
    ) -> None:
        memory.script(ProviderError("connection refused"))

        service.handle_feishu_requested(payload())

        assert (row().last_error_code, row().last_error) == ("network_error", "connection refused")

    @pytest.mark.parametrize("limit", [1, 2, 5])
    def test_never_one_send_more_than_allowed(self, memory: MemoryProvider, clock: Clock, limit: int) -> None:
        service = NotificationService(options=options(max_attempts=limit), clock=clock, providers={"feishu": memory})
        memory.script(*[LATER] * 20)
        service.handle_feishu_requested(payload())

        for _ in range(10):
            clock.forward(hours=1)
            service.retry_due()
            service.handle_feishu_requested(payload())

        assert len(memory.requests) == limit
        assert (row().status, row().attempt_count) == (Status.DEAD, limit)

    @pytest.mark.parametrize("status", [Status.PENDING, Status.FAILED])
    def test_a_record_whose_budget_was_cut_is_not_sent_once_more(
        self, service: NotificationService, memory: MemoryProvider, status: Status
    ) -> None:
        accept(service, KEY)
        NotificationRecord.objects.update(status=status, attempt_count=5, max_attempts=5)

        result = service.retry_feishu_notifications()

        assert (result.dead, result.retried, memory.requests) == (1, 0, [])
        assert (row().status, row().last_error_code, row().attempt_count) == (Status.DEAD, "attempts_exhausted", 5)
