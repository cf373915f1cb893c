"""The engine: claim, lock, send, settle, on real PostgreSQL and Valkey."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import ModuleType
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from django.db import OperationalError, connection, transaction

from notifications.broker.redis_client import RedisGateway, gateway
from notifications.conf import ServiceOptions, service_options
from notifications.delivery import engine as engine_module, settle as settle_module
from notifications.delivery.claim import claim
from notifications.delivery.engine import Engine, RetryResult
from notifications.delivery.locks import HeldLocks, Locks
from notifications.delivery.settle import settle_batch
from notifications.delivery.settlement import build_settlement
from notifications.models import DeliveryAttempt, NotificationRecord
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.states import Cause, ErrorCode, Outcome, Status

NOW = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
OK = SendResult(outcome=Outcome.SUCCESS)
TRY_LATER = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_5xx", error_message="HTTP 503")

pytestmark = pytest.mark.django_db


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def options(**changes: object) -> ServiceOptions:
    return dataclasses.replace(service_options(), **changes)  # type: ignore[arg-type]


def engine(memory: MemoryProvider, clock: Clock, **changes: object) -> Engine:
    return Engine(options=options(**changes), clock=clock, providers={"feishu": memory})


def locked_engine(memory: MemoryProvider, clock: Clock) -> Engine:
    made = engine(memory, clock)
    made.locks = Locks(gateway(), ttl=60)
    return made


def record(key: str = "k1", **fields: object) -> NotificationRecord:
    values = {"channel": "feishu", "user_id": 42, "target_url": "/a", "summary_text": "text", "max_attempts": 5}
    values |= {"dedupe_key": key, "next_attempt_at": NOW} | fields
    if values.get("status") == Status.SENDING:
        values.setdefault("lease_token", uuid.uuid4())
    return NotificationRecord.objects.create(**values)


class TestClaim:
    def test_takes_the_longest_overdue_first(self, memory: MemoryProvider, clock: Clock) -> None:
        for key, minutes in (("late", 1), ("later", 2), ("latest", 3)):
            record(key, next_attempt_at=NOW - timedelta(minutes=minutes))

        engine(memory, clock, send_slots=1).deliver_due(limit=2)

        by_id = dict(NotificationRecord.objects.values_list("id", "dedupe_key"))
        assert [by_id[request.notification_id] for request in memory.requests] == ["latest", "later"]

    def test_leaves_what_is_not_due_yet(self, memory: MemoryProvider, clock: Clock) -> None:
        record(next_attempt_at=NOW + timedelta(microseconds=1))

        assert engine(memory, clock).deliver_due().scanned == 0

        clock.forward(microseconds=1)
        assert engine(memory, clock).deliver_due().sent == 1

    def test_leaves_channels_it_has_no_provider_for(self, memory: MemoryProvider, clock: Clock) -> None:
        other = record("email", channel="email", next_attempt_at=NOW - timedelta(days=1))
        record("feishu")

        result = engine(memory, clock, send_slots=1).deliver_due()

        other.refresh_from_db()
        assert (result.scanned, result.sent, other.status, other.attempt_count) == (1, 1, Status.PENDING, 0)

    def test_puts_the_row_under_a_lease_before_anything_is_sent(self, clock: Clock) -> None:
        seen: list[NotificationRecord] = []

        class Looking(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                seen.append(NotificationRecord.objects.get(pk=request.notification_id))
                return OK

        row = record()
        Engine(options=options(lease=60), clock=clock, providers={"feishu": Looking()}).deliver_one(row.pk)

        [before] = seen
        assert (before.status, before.attempt_count) == (Status.SENDING, 1)
        assert before.lease_token is not None
        assert before.next_attempt_at == NOW + timedelta(seconds=60)

    @pytest.mark.django_db(transaction=True)
    def test_refuses_to_run_inside_a_transaction(self, memory: MemoryProvider, clock: Clock) -> None:
        row = record()

        with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
            engine(memory, clock).deliver_one(row.pk)

        assert memory.requests == []

    def test_the_request_carries_the_message_and_the_attempt(self, memory: MemoryProvider, clock: Clock) -> None:
        row = record(trace_id="trace-7", attempt_count=2, status=Status.FAILED)

        engine(memory, clock).deliver_due()

        [request] = memory.requests
        assert request.notification_id == row.pk
        assert request.message_text == "text\n/a"
        assert (request.attempt_count, request.trace_id) == (3, "trace-7")


class TestLock:
    def test_a_held_key_is_given_back_untouched(self, memory: MemoryProvider, clock: Clock) -> None:
        row = record(status=Status.FAILED, attempt_count=2)
        held = Locks(gateway(), ttl=60).acquire(["feishu|k1"])

        result = locked_engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert (result.scanned, result.retried, result.skipped) == (1, 0, 1)
        assert (row.status, row.attempt_count, row.lease_token) == (Status.FAILED, 2, None)
        assert row.next_attempt_at == NOW + timedelta(seconds=service_options().held_key_delay)

        Locks(gateway(), ttl=60).release(held)
        clock.forward(seconds=service_options().held_key_delay)
        assert locked_engine(memory, clock).deliver_due().sent == 1

    def test_an_expired_lease_whose_worker_holds_the_key_is_not_sent_again(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        lease = uuid.uuid4()
        row = record(status=Status.SENDING, attempt_count=5, lease_token=lease)
        Locks(gateway(), ttl=60).acquire(["feishu|k1"])

        locked_engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert memory.requests == []
        assert (row.status, row.attempt_count, row.lease_token) == (Status.SENDING, 5, lease)
        assert not DeliveryAttempt.objects.exists()

    def test_keys_are_free_again_after_the_result_is_stored(self, memory: MemoryProvider, clock: Clock) -> None:
        record()

        locked_engine(memory, clock).deliver_due()

        assert Locks(gateway(), ttl=60).acquire(["feishu|k1"]).keys

    def test_without_redis_the_claim_alone_guards(
        self, memory: MemoryProvider, clock: Clock, away: RedisGateway
    ) -> None:
        record()
        alone = engine(memory, clock)
        alone.locks = Locks(away, ttl=60)

        assert alone.deliver_due().sent == 1
        assert alone.deliver_due().scanned == 0


class TestSettle:
    def test_a_failure_is_scheduled_by_the_backoff(self, memory: MemoryProvider, clock: Clock) -> None:
        row = record()
        memory.script(TRY_LATER, TRY_LATER)

        engine(memory, clock, retry_base_delay=300).deliver_due()
        clock.forward(seconds=300)
        engine(memory, clock, retry_base_delay=300).deliver_due()

        row.refresh_from_db()
        assert (row.status, row.attempt_count, row.last_error_code) == (Status.FAILED, 2, "provider_5xx")
        assert row.next_attempt_at == clock.now + timedelta(seconds=600)

    def test_the_last_failure_is_final(self, memory: MemoryProvider, clock: Clock) -> None:
        row = record(status=Status.FAILED, attempt_count=4)
        memory.script(TRY_LATER)

        result = engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert (result.dead, row.status, row.next_attempt_at) == (1, Status.DEAD, None)

    def test_a_late_failure_changes_nothing(self, clock: Clock) -> None:
        row = record()
        [first] = claim(1, channels=["feishu"], options=options(), clock=clock)
        clock.forward(hours=1)
        [second] = claim(1, channels=["feishu"], options=options(), clock=clock)

        late = settle_batch([build_settlement(first, TRY_LATER, options(), duration=1, age=1)], clock)

        row.refresh_from_db()
        assert late == set()
        assert (row.status, str(row.lease_token)) == (Status.SENDING, second.lease_token)

    def test_a_late_success_stops_further_sends(self, memory: MemoryProvider, clock: Clock) -> None:
        row = record()
        [first] = claim(1, channels=["feishu"], options=options(), clock=clock)
        clock.forward(hours=1)
        [second] = claim(1, channels=["feishu"], options=options(), clock=clock)
        settle_batch([build_settlement(second, TRY_LATER, options(), duration=1, age=1)], clock)

        settle_batch([build_settlement(first, OK, options(), duration=1, age=1)], clock)

        clock.forward(days=1)
        row.refresh_from_db()
        assert row.status == Status.SENT
        assert engine(memory, clock).deliver_due().scanned == 0

    def test_sent_never_turns_back(self, clock: Clock) -> None:
        row = record()
        [first] = claim(1, channels=["feishu"], options=options(), clock=clock)
        clock.forward(hours=1)
        [second] = claim(1, channels=["feishu"], options=options(), clock=clock)
        settle_batch([build_settlement(first, OK, options(), duration=1, age=1)], clock)

        settle_batch([build_settlement(second, TRY_LATER, options(), duration=1, age=1)], clock)

        row.refresh_from_db()
        assert row.status == Status.SENT

    def test_every_attempt_leaves_a_row_with_every_fact(self, memory: MemoryProvider, clock: Clock) -> None:
        record()
        memory.script(dataclasses.replace(TRY_LATER, http_status=503, response_excerpt="busy"))

        engine(memory, clock).deliver_due()

        attempt = DeliveryAttempt.objects.get()
        assert (attempt.round, attempt.number, attempt.cause) == (0, 1, Cause.EVENT)
        assert (attempt.outcome, attempt.error_code, attempt.error) == ("temporary_fail", "provider_5xx", "HTTP 503")
        assert (attempt.http_status, attempt.response_excerpt) == (503, "busy")
        assert attempt.worker
        assert attempt.started_at <= clock.now

    @pytest.mark.django_db(transaction=True)  # a refused statement ends the test's own transaction
    def test_an_answer_postgresql_refuses_is_settled_without_its_odd_parts(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        odd, plain = record("odd"), record("plain")
        memory.script(dataclasses.replace(OK, http_status=2**40), OK)
        drain = engine(memory, clock, send_slots=1)

        flights = drain._claim(2, ["feishu"], RetryResult())
        for flight in flights:
            drain._send(flight)
        drain._finish(flights, RetryResult())

        odd.refresh_from_db()
        plain.refresh_from_db()
        assert (odd.status, plain.status) == (Status.SENT, Status.SENT)
        assert list(DeliveryAttempt.objects.values_list("http_status", flat=True)) == [None, None]

    def test_a_group_larger_than_the_slots_is_settled_whole(self, memory: MemoryProvider, clock: Clock) -> None:
        for number in range(25):
            record(f"k{number}")

        result = engine(memory, clock, send_slots=4).deliver_due()

        assert (result.sent, DeliveryAttempt.objects.count()) == (25, 25)

    def test_a_provider_that_raises_costs_one_attempt_and_no_neighbour(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        poison = record("a")
        record("b")
        memory.script(ZeroDivisionError("with a https://secret.example/key"))

        result = engine(memory, clock, send_slots=1).deliver_due()

        poison.refresh_from_db()
        assert (result.sent, result.failed) == (1, 1)
        assert (poison.last_error_code, poison.last_error) == ("internal_error", "ZeroDivisionError in the provider")


class TestRecovery:
    def test_a_row_whose_worker_vanished_is_sent_by_another(self, memory: MemoryProvider, clock: Clock) -> None:
        row = record(status=Status.SENDING, attempt_count=1)

        engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert (row.status, row.attempt_count) == (Status.SENT, 2)
        facts = row.attempts.values_list("number", "cause", "outcome", "error_code")
        assert list(facts) == [(1, Cause.EVENT, Outcome.LOST, "lease_expired"), (2, Cause.RECOVERY, "success", "")]

    def test_a_lease_that_ran_out_on_the_last_attempt_ends_dead(self, memory: MemoryProvider, clock: Clock) -> None:
        row = record(status=Status.SENDING, attempt_count=5)

        result = engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert memory.requests == []
        assert (result.dead, result.retried) == (1, 0)
        assert (row.status, row.last_error_code, row.attempt_count) == (Status.DEAD, ErrorCode.LEASE_EXPIRED, 5)
        assert list(row.attempts.values_list("number", "outcome")) == [(5, Outcome.LOST)]

    def test_a_late_answer_replaces_the_lost_attempt(self, clock: Clock, memory: MemoryProvider) -> None:
        row = record()
        [slow] = claim(1, channels=["feishu"], options=options(), clock=clock)
        clock.forward(hours=1)
        engine(memory, clock).deliver_due()

        settle_batch([build_settlement(slow, TRY_LATER, options(), duration=1, age=1)], clock)

        assert list(row.attempts.values_list("number", "outcome")) == [(1, "temporary_fail"), (2, "success")]

    def test_a_worker_that_was_only_late_and_settles_before_the_key_is_locked_is_not_repeated(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        row = record()
        [slow] = claim(1, channels=["feishu"], options=options(), clock=clock)
        clock.forward(hours=1)

        class SettledMeanwhile(Locks):
            def acquire(self, keys: Iterable[str]) -> HeldLocks:
                settle_batch([build_settlement(slow, OK, options(), duration=1, age=1)], clock)
                return super().acquire(keys)

        second = engine(memory, clock)
        second.locks = SettledMeanwhile(gateway(), ttl=60)

        result = second.deliver_due()

        row.refresh_from_db()
        assert memory.requests == []
        assert (result.scanned, result.retried, result.skipped, row.status) == (1, 0, 1, Status.SENT)
        assert list(row.attempts.values_list("number", "outcome")) == [(1, "success")]
        assert second.locks.acquire(["feishu|k1"]).keys

    @pytest.mark.parametrize("left", [0.0, 14.9])
    def test_nothing_is_sent_that_could_not_be_settled_within_its_lease(
        self, memory: MemoryProvider, clock: Clock, left: float
    ) -> None:
        row = record()
        asleep = engine(memory, clock, lease=20, total_timeout=10)
        flights = asleep._claim(1, ["feishu"], RetryResult())
        flights[0].row = dataclasses.replace(flights[0].row, lease_deadline=time.monotonic() + left)

        for flight in flights:
            asleep._send(flight)
        asleep._finish(flights, RetryResult())

        row.refresh_from_db()
        assert memory.requests == []
        assert (row.status, row.attempt_count, row.lease_token) == (Status.PENDING, 0, None)


class Gated(MemoryProvider):
    """Keeps users waiting until their gate is opened."""

    def __init__(self, *users: int) -> None:
        super().__init__()
        self.gates = {user: threading.Event() for user in users}

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        assert self.gates[request.user_id].wait(20)
        return super().send(request, endpoint)


class TestDrain:
    def test_a_slow_endpoint_holds_its_slot_and_not_the_others(self, clock: Clock) -> None:
        slow, fast = 1, 2
        gated = Gated(slow, fast)
        gated.gates[fast].set()
        record("slow", user_id=slow, next_attempt_at=NOW - timedelta(minutes=1))
        for number in range(9):
            record(f"k{number}", user_id=fast)
        drain = Engine(options=options(send_slots=2), clock=clock, providers={"feishu": gated})
        settle_all = drain._finish

        def finish_and_open(*args: object, **kwargs: object) -> object:
            ended = settle_all(*args, **kwargs)  # type: ignore[arg-type]
            if NotificationRecord.objects.filter(status=Status.SENT).count() == 9:
                gated.gates[slow].set()
            return ended

        drain._finish = finish_and_open  # type: ignore[method-assign,assignment]

        result = drain.deliver_due()

        assert result.sent == 10
        assert gated.requests[-1].user_id == slow

    @pytest.mark.parametrize(
        ("answer", "order"),
        [
            (OK, "claim claim settle_batch claim settle_batch"),
            (TRY_LATER, "claim settle_batch claim settle_batch claim"),
        ],
        ids=["success", "failure"],
    )
    def test_a_backlog_is_claimed_before_successes_are_settled_and_after_failures(
        self, memory: MemoryProvider, clock: Clock, monkeypatch: pytest.MonkeyPatch, answer: SendResult, order: str
    ) -> None:
        done: list[str] = []

        def record_calls(module: ModuleType, name: str) -> None:
            original = getattr(module, name)

            def call(*args: object, **kwargs: object) -> object:
                done.append(name)
                return original(*args, **kwargs)

            monkeypatch.setattr(module, name, call)

        record_calls(engine_module, "claim")
        record_calls(settle_module, "settle_batch")
        record("a")
        record("b")
        memory.script(answer, answer)

        engine(memory, clock, send_slots=1).deliver_due()

        assert " ".join(done) == order

    def test_a_spent_budget_says_that_there_is_more(self, memory: MemoryProvider, clock: Clock) -> None:
        for number in range(4):
            record(f"k{number}")
        drain = engine(memory, clock, send_slots=2)
        drain.should_stop = lambda: bool(memory.requests)

        result = drain.deliver_due()

        assert (result.sent, result.has_more) == (2, True)

    @pytest.mark.parametrize(("rows", "helped"), [(6, True), (1, False)])
    def test_a_claim_that_comes_back_full_calls_for_help(
        self, memory: MemoryProvider, clock: Clock, rows: int, helped: bool
    ) -> None:
        for number in range(rows):
            record(f"k{number}")
        calls: list[int] = []

        engine(memory, clock, send_slots=2).deliver_due(on_backlog=lambda: calls.append(1))

        assert bool(calls) is helped

    def test_a_call_that_comes_when_the_budget_is_spent_is_left_to_the_next_drain(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        record("a")
        called = threading.Event()
        called.set()

        spent = Engine(
            options=options(drain_budget=1e-9), clock=clock, providers={"feishu": memory}, wakeup=called
        ).deliver_due()

        assert (spent.scanned, called.is_set()) == (0, True)

    def test_a_failing_claim_still_settles_what_is_in_flight(
        self, memory: MemoryProvider, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record("a")
        record("b")
        drain = engine(memory, clock, send_slots=1)
        take, calls = drain._claim, iter(range(10))

        def take_once(*args: object, **kwargs: object) -> object:
            if next(calls):
                raise OperationalError
            return take(*args, **kwargs)  # type: ignore[arg-type]

        monkeypatch.setattr(drain, "_claim", take_once)

        with pytest.raises(OperationalError):
            drain.deliver_due()

        assert NotificationRecord.objects.by_status() == {"sent": 1, "pending": 1}

    @pytest.mark.django_db(transaction=True)
    def test_a_connection_cut_during_the_send_loses_no_result(self, clock: Clock) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            [backend] = cursor.fetchone()
        address = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}"))

        class Cutting(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                with contextlib.closing(psycopg2.connect(address)) as other, other.cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
                return super().send(request, endpoint)

        cutting = Cutting()
        row = record()

        Engine(options=options(), clock=clock, providers={"feishu": cutting}).deliver_due()

        row.refresh_from_db()
        assert (row.status, row.attempt_count, len(cutting.requests)) == (Status.SENT, 1, 1)
