"""The engine: claim, lock, send, settle, on real PostgreSQL and Valkey."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import re
import threading
import time
import uuid
from datetime import timedelta
from types import ModuleType
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, transaction

from notifications.broker.redis_client import RedisGateway, gateway
from notifications.conf import service_options
from notifications.delivery import engine as engine_module, settle as settle_module
from notifications.delivery.claim import claim
from notifications.delivery.engine import Engine, RetryResult
from notifications.delivery.locks import KeyLock, Locks
from notifications.delivery.senders import attempt
from notifications.delivery.settle import settle_batch
from notifications.delivery.settlement import build_settlement
from notifications.delivery.wakeup import Wakeup
from notifications.models import DeliveryAttempt, NotificationRecord, UserNotificationChannel
from notifications.providers.base import MAY_HAVE_ARRIVED, Endpoint, SendRequest, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.states import Cause, ErrorCode, Outcome, Status
from tests.support.delivery import (
    NOW,
    OK,
    TRY_LATER,
    Clock,
    make_due_record,
    make_engine,
    make_locking_engine,
    options_with,
)
from tests.support.paths import ROOT

pytestmark = pytest.mark.django_db


class TestClaim:
    def test_a_date_that_python_cannot_hold_stops_no_delivery(self, memory: MemoryProvider, clock: Clock) -> None:
        for key, date in (("a", "4713-01-02 BC"), ("b", "-infinity"), ("c", "0001-01-01 BC")):
            row = make_due_record(key)
            with connection.cursor() as cursor:
                cursor.execute("UPDATE notification_records SET next_attempt_at = %s WHERE id = %s", [date, row.pk])
        for number in range(20):
            make_due_record(f"k{number}")

        assert make_engine(memory, clock, send_slots=4).deliver_due().sent == 23

    def test_longest_overdue_record_is_claimed_first(self, memory: MemoryProvider, clock: Clock) -> None:
        for key, minutes in (("late", 1), ("later", 2), ("latest", 3)):
            make_due_record(key, next_attempt_at=NOW - timedelta(minutes=minutes))

        make_engine(memory, clock, send_slots=1).deliver_due(limit=2)

        by_id = dict(NotificationRecord.objects.values_list("id", "dedupe_key"))
        assert [by_id[request.notification_id] for request in memory.requests] == ["latest", "later"]

    def test_record_is_not_claimed_before_it_is_due(self, memory: MemoryProvider, clock: Clock) -> None:
        make_due_record(next_attempt_at=NOW + timedelta(microseconds=1))

        assert make_engine(memory, clock).deliver_due().scanned == 0

        clock.forward(microseconds=1)
        assert make_engine(memory, clock).deliver_due().sent == 1

    def test_channel_without_a_provider_is_not_claimed(self, memory: MemoryProvider, clock: Clock) -> None:
        other = make_due_record("email", channel="email", next_attempt_at=NOW - timedelta(days=1))
        make_due_record("feishu")

        result = make_engine(memory, clock, send_slots=1).deliver_due()

        other.refresh_from_db()
        assert (result.scanned, result.sent, other.status, other.attempt_count) == (1, 1, Status.PENDING, 0)

    def test_lease_is_stored_before_the_send(self, clock: Clock) -> None:
        during_send: list[NotificationRecord] = []

        class ReadingProvider(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                during_send.append(NotificationRecord.objects.get(pk=request.notification_id))
                return OK

        row = make_due_record()
        Engine(options=options_with(lease=60), clock=clock, providers={"feishu": ReadingProvider()}).deliver_one(row.pk)

        [stored] = during_send
        assert (stored.status, stored.attempt_count) == (Status.SENDING, 1)
        assert stored.lease_token is not None
        assert stored.next_attempt_at == NOW + timedelta(seconds=60)

    @pytest.mark.django_db(transaction=True)
    def test_delivery_inside_a_transaction_is_refused(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record()

        with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
            make_engine(memory, clock).deliver_one(row.pk)

        assert memory.requests == []

    def test_provider_gets_the_message_and_the_attempt_number(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record(trace_id="trace-7", attempt_count=2, status=Status.FAILED)

        make_engine(memory, clock).deliver_due()

        [request] = memory.requests
        assert request.notification_id == row.pk
        assert request.message_text == "text\n/a"
        assert (request.attempt_count, request.trace_id) == (3, "trace-7")


class TestLock:
    def test_expired_lease_is_not_sent_again_while_the_lock_of_its_claim_lasts(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        lease = uuid.uuid4()
        row = make_due_record(status=Status.SENDING, attempt_count=2, lease_token=lease)
        locks = Locks(gateway(), ttl=60)
        locks.hold_claim(str(lease), seconds=60)
        locks.receive_answers()

        result = make_locking_engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert (result.scanned, result.retried, result.skipped, memory.requests) == (1, 0, 1, [])
        assert (row.status, row.attempt_count, row.lease_token) == (Status.SENDING, 2, lease)
        assert row.next_attempt_at == NOW + timedelta(seconds=service_options().held_key_delay)
        assert not DeliveryAttempt.objects.exists()

        gateway().run(lambda client: client.delete(gateway().key(f"claim:{lease}")))
        clock.forward(seconds=service_options().held_key_delay)
        assert make_locking_engine(memory, clock).deliver_due().sent == 1

    def test_expired_lease_is_not_sent_again_while_another_process_holds_the_key(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        """So does an event that is delivered inline, and a worker of the version before claim locks."""
        lease = uuid.uuid4()
        row = make_due_record(status=Status.SENDING, attempt_count=5, lease_token=lease)
        Locks(gateway(), ttl=60).acquire("feishu|k1")

        make_locking_engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert memory.requests == []
        assert (row.status, row.attempt_count, row.lease_token) == (Status.SENDING, 5, lease)
        assert not DeliveryAttempt.objects.exists()

    def test_claim_is_locked_while_its_records_are_sent(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record()
        held = []

        class LookingProvider(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                row.refresh_from_db()
                held.append(Locks(gateway(), ttl=60).is_claim_held(str(row.lease_token)))
                return super().send(request, endpoint)

        engine = make_locking_engine(LookingProvider(), clock)

        assert engine.deliver_one(row.pk)
        assert held == [True]

    def test_key_of_a_recovered_record_is_released_however_its_delivery_ends(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        user = get_user_model().objects.create(username="held")
        UserNotificationChannel.objects.create(user=user, channel="feishu")
        make_due_record(status=Status.SENDING, lease_token=uuid.uuid4(), user_id=user.pk)
        make_locking_engine(memory, clock).deliver_due()
        assert len(memory.requests) == 1
        lock = Locks(gateway(), ttl=60).acquire("feishu|k1")
        assert lock
        Locks(gateway(), ttl=60).release(lock)

        NotificationRecord.objects.update(
            status=Status.SENDING, lease_token=uuid.uuid4(), next_attempt_at=NOW, sent_at=None
        )
        UserNotificationChannel.objects.update(paused_at=NOW)
        make_locking_engine(memory, clock).deliver_due()
        assert len(memory.requests) == 1
        assert Locks(gateway(), ttl=60).acquire("feishu|k1")

    def test_claim_alone_guards_without_redis(self, memory: MemoryProvider, clock: Clock, away: RedisGateway) -> None:
        make_due_record()
        alone = make_engine(memory, clock)
        alone.locks = Locks(away, ttl=60)

        assert alone.deliver_due().sent == 1
        assert alone.deliver_due().scanned == 0


class TestSettle:
    def test_failed_record_is_due_after_the_backoff(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record()
        memory.script(TRY_LATER, TRY_LATER)

        make_engine(memory, clock, retry_base_delay=300).deliver_due()
        clock.forward(seconds=300)
        make_engine(memory, clock, retry_base_delay=300).deliver_due()

        row.refresh_from_db()
        assert (row.status, row.attempt_count, row.last_error_code) == (Status.FAILED, 2, "provider_5xx")
        assert row.next_attempt_at == clock.now + timedelta(seconds=600)

    def test_failure_of_the_last_attempt_is_final(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record(status=Status.FAILED, attempt_count=4)
        memory.script(TRY_LATER)

        result = make_engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert (result.dead, row.status, row.next_attempt_at) == (1, Status.DEAD, None)

    def test_failure_under_a_lost_lease_does_not_change_the_record(self, clock: Clock) -> None:
        row = make_due_record()
        [first] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        clock.forward(hours=1)
        [second] = claim(1, channels=["feishu"], options=options_with(), clock=clock)

        late = settle_batch([build_settlement(first, TRY_LATER, options_with(), duration=1, age=1)], clock)

        row.refresh_from_db()
        assert late == set()
        assert (row.status, str(row.lease_token)) == (Status.SENDING, second.lease_token)

    def test_success_under_a_lost_lease_stops_further_sends(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record()
        [first] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        clock.forward(hours=1)
        [second] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        settle_batch([build_settlement(second, TRY_LATER, options_with(), duration=1, age=1)], clock)

        settle_batch([build_settlement(first, OK, options_with(), duration=1, age=1)], clock)

        clock.forward(days=1)
        row.refresh_from_db()
        assert row.status == Status.SENT
        assert make_engine(memory, clock).deliver_due().scanned == 0

    def test_sent_record_is_never_changed_by_a_later_failure(self, clock: Clock) -> None:
        row = make_due_record()
        [first] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        clock.forward(hours=1)
        [second] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        settle_batch([build_settlement(first, OK, options_with(), duration=1, age=1)], clock)

        settle_batch([build_settlement(second, TRY_LATER, options_with(), duration=1, age=1)], clock)

        row.refresh_from_db()
        assert row.status == Status.SENT

    def test_attempt_row_has_every_field_of_the_result(self, memory: MemoryProvider, clock: Clock) -> None:
        make_due_record()
        memory.script(dataclasses.replace(TRY_LATER, http_status=503, response_excerpt="busy"))

        make_engine(memory, clock).deliver_due()

        attempt = DeliveryAttempt.objects.get()
        assert (attempt.round, attempt.number, attempt.cause) == (0, 1, Cause.EVENT)
        assert (attempt.outcome, attempt.error_code, attempt.error) == ("temporary_fail", "provider_5xx", "HTTP 503")
        assert (attempt.http_status, attempt.response_excerpt) == (503, "busy")
        assert attempt.worker
        assert attempt.started_at <= clock.now

    @pytest.mark.django_db(transaction=True)  # a refused statement ends the test's own transaction
    def test_result_that_postgresql_refuses_is_stored_without_provider_data(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        odd, plain = make_due_record("odd"), make_due_record("plain")
        memory.script(dataclasses.replace(OK, http_status=2**40), OK)
        drain = make_engine(memory, clock, send_slots=1)

        flights = drain._claim(2, ["feishu"], RetryResult())
        for flight in flights:
            attempt(flight, drain.providers, drain.options)
        drain._finish(flights, RetryResult())

        odd.refresh_from_db()
        plain.refresh_from_db()
        assert (odd.status, plain.status) == (Status.SENT, Status.SENT)
        assert list(DeliveryAttempt.objects.values_list("http_status", flat=True)) == [None, None]

    def test_more_records_than_slots_are_all_settled(self, memory: MemoryProvider, clock: Clock) -> None:
        for number in range(25):
            make_due_record(f"k{number}")

        result = make_engine(memory, clock, send_slots=4).deliver_due()

        assert (result.sent, DeliveryAttempt.objects.count()) == (25, 25)

    def test_exception_in_a_provider_fails_only_its_own_record(self, memory: MemoryProvider, clock: Clock) -> None:
        poison = make_due_record("a")
        make_due_record("b")
        memory.script(ZeroDivisionError("with a https://secret.example/key"))

        result = make_engine(memory, clock, send_slots=1).deliver_due()

        poison.refresh_from_db()
        assert (result.sent, result.failed) == (1, 1)
        assert (poison.last_error_code, poison.last_error) == ("internal_error", "ZeroDivisionError in the provider")


def find_possible_duplicates() -> set[int]:
    """Run the query of docs/reliability.md."""
    text = (ROOT / "docs/reliability.md").read_text()
    [query] = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    with connection.cursor() as cursor:
        cursor.execute(query.replace("%", "%%"), [])
        return {row[0] for row in cursor.fetchall()}


class TestRecovery:
    def test_record_of_a_lost_worker_is_sent_by_another_worker(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record(status=Status.SENDING, attempt_count=1)

        make_engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert (row.status, row.attempt_count) == (Status.SENT, 2)
        facts = row.attempts.values_list("number", "cause", "outcome", "error_code")
        assert list(facts) == [(1, Cause.EVENT, Outcome.LOST, "lease_expired"), (2, Cause.RECOVERY, "success", "")]

    def test_lost_last_attempt_makes_the_record_dead(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record(status=Status.SENDING, attempt_count=5)

        result = make_engine(memory, clock).deliver_due()

        row.refresh_from_db()
        assert memory.requests == []
        assert (result.dead, result.retried) == (1, 0)
        assert (row.status, row.last_error_code, row.attempt_count) == (Status.DEAD, ErrorCode.LEASE_EXPIRED, 5)
        assert list(row.attempts.values_list("number", "outcome")) == [(5, Outcome.LOST)]

    @pytest.mark.parametrize(
        ("late", "other", "status", "may_be_double"),
        [
            (OK, OK, Status.SENT, True),
            (OK, TRY_LATER, Status.SENT, True),
            (TRY_LATER, OK, Status.SENT, False),
            (dataclasses.replace(TRY_LATER, error_message=f"reset; {MAY_HAVE_ARRIVED}"), OK, Status.SENT, True),
        ],
    )
    def test_late_result_replaces_the_lost_attempt_and_keeps_that_it_was_lost(
        self,
        clock: Clock,
        memory: MemoryProvider,
        late: SendResult,
        other: SendResult,
        status: Status,
        *,
        may_be_double: bool,
    ) -> None:
        row = make_due_record()
        [slow] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        clock.forward(hours=1)
        memory.script(other)
        make_engine(memory, clock).deliver_due()
        assert find_possible_duplicates() == {row.pk}

        settle_batch([build_settlement(slow, late, options_with(), duration=1, age=1)], clock)

        row.refresh_from_db()
        first, second = row.attempts.all()
        assert (row.status, first.outcome, second.outcome) == (status, late.outcome, other.outcome)
        assert "recorded as lost" in first.error
        assert late.error_message in first.error
        assert find_possible_duplicates() == ({row.pk} if may_be_double else set())

    def test_success_settled_between_claim_and_second_check_is_not_sent_again(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        row = make_due_record()
        [slow] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        clock.forward(hours=1)

        class LocksThatSettleFirst(Locks):
            def acquire(self, key: str) -> KeyLock | None:
                settle_batch([build_settlement(slow, OK, options_with(), duration=1, age=1)], clock)
                return super().acquire(key)

        second = make_engine(memory, clock)
        second.locks = LocksThatSettleFirst(gateway(), ttl=60)

        result = second.deliver_due()

        row.refresh_from_db()
        assert memory.requests == []
        assert (result.scanned, result.retried, result.skipped, row.status) == (1, 0, 1, Status.SENT)
        assert list(row.attempts.values_list("number", "outcome")) == [(1, "success")]
        assert second.locks.acquire("feishu|k1")

    def test_nothing_is_sent_if_too_little_of_the_lease_is_left(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record()
        engine = make_engine(memory, clock, lease=20, total_timeout=10)
        for seconds_left in (0.0, 14.9):
            [flight] = engine._claim(1, ["feishu"], RetryResult())
            flight.row = dataclasses.replace(flight.row, lease_deadline=time.monotonic() + seconds_left)

            attempt(flight, engine.providers, engine.options)
            engine._finish([flight], RetryResult())

            row.refresh_from_db()
            assert memory.requests == [], f"{seconds_left} s left"
            assert (row.status, row.attempt_count, row.lease_token) == (Status.PENDING, 0, None)


class GatedProvider(MemoryProvider):
    """A provider whose sends wait until the gate of their user is opened."""

    def __init__(self, *users: int) -> None:
        super().__init__()
        self.gates: dict[int | str | None, threading.Event] = {user: threading.Event() for user in users}

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        assert self.gates[request.user_id].wait(20)
        return super().send(request, endpoint)


class TestDrain:
    def test_slow_endpoint_blocks_only_its_own_slot(self, clock: Clock) -> None:
        slow, fast = 1, 2
        gated = GatedProvider(slow, fast)
        gated.gates[fast].set()
        make_due_record("slow", user_id=slow, next_attempt_at=NOW - timedelta(minutes=1))
        for number in range(9):
            make_due_record(f"k{number}", user_id=fast)
        drain = Engine(options=options_with(send_slots=2), clock=clock, providers={"feishu": gated})
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
            (OK, "claim claim settle_batch settle_batch claim"),
            (TRY_LATER, "claim settle_batch claim settle_batch claim"),
        ],
        ids=["success", "failure"],
    )
    def test_backlog_is_claimed_before_successes_are_settled_and_after_failures(
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
        make_due_record("a")
        make_due_record("b")
        memory.script(answer, answer)

        make_engine(memory, clock, send_slots=1).deliver_due()

        assert " ".join(done) == order

    def test_drain_that_stops_early_reports_more_due_records(self, memory: MemoryProvider, clock: Clock) -> None:
        for number in range(4):
            make_due_record(f"k{number}")
        drain = make_engine(memory, clock, send_slots=2)
        drain.should_stop = lambda: bool(memory.requests)

        result = drain.deliver_due()

        assert (result.sent, result.has_more) == (2, True)

    def test_full_claim_calls_on_backlog(self, memory: MemoryProvider, clock: Clock) -> None:
        calls: list[int] = []
        engine = make_engine(memory, clock, send_slots=2)

        make_due_record("alone")
        engine.deliver_due(on_backlog=lambda: calls.append(1))
        assert calls == []

        for number in range(6):
            make_due_record(f"k{number}")
        engine.deliver_due(on_backlog=lambda: calls.append(1))
        assert calls

    def test_wakeup_after_the_time_budget_is_kept_for_the_next_drain(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        make_due_record("a")
        wakeup = Wakeup()
        wakeup.set()

        spent = Engine(
            options=options_with(drain_budget=1e-9), clock=clock, providers={"feishu": memory}, wakeup=wakeup
        ).deliver_due()

        assert (spent.scanned, wakeup.is_set()) == (0, True)

    def test_failing_claim_still_settles_the_sends_in_flight(
        self, memory: MemoryProvider, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_due_record("a")
        make_due_record("b")
        drain = make_engine(memory, clock, send_slots=1)
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
    def test_result_survives_a_database_connection_cut_during_the_send(self, clock: Clock) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            [backend] = cursor.fetchone()
        address = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}"))

        class CuttingProvider(MemoryProvider):
            def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
                with contextlib.closing(psycopg2.connect(address)) as other, other.cursor() as cursor:
                    cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
                return super().send(request, endpoint)

        cutting = CuttingProvider()
        row = make_due_record()

        Engine(options=options_with(), clock=clock, providers={"feishu": cutting}).deliver_due()

        row.refresh_from_db()
        assert (row.status, row.attempt_count, len(cutting.requests)) == (Status.SENT, 1, 1)


class TestInactiveUsers:
    def make_user(self, *, is_active: bool) -> int:
        user = get_user_model().objects.create_user(f"user-{is_active}", is_active=is_active)
        UserNotificationChannel.objects.create(user=user, channel="feishu", webhook_url="https://example.com")
        return int(user.pk)

    @pytest.mark.parametrize(
        ("setting", "is_active", "outcome"),
        [
            ("send", True, (Status.SENT, "")),
            ("send", False, (Status.SENT, "")),
            ("skip", True, (Status.SENT, "")),
            ("skip", False, (Status.SKIPPED, ErrorCode.USER_INACTIVE)),
        ],
    )
    def test_messages_to_inactive_users_are_skipped_if_the_setting_says_so(
        self, memory: MemoryProvider, clock: Clock, setting: str, outcome: tuple[str, str], *, is_active: bool
    ) -> None:
        row = make_due_record(user_id=self.make_user(is_active=is_active))

        make_engine(memory, clock, inactive_users=setting).deliver_due()

        row.refresh_from_db()
        assert (row.status, row.last_error_code) == outcome
        assert len(memory.requests) == (row.status == Status.SENT)

    def test_message_to_an_inactive_user_does_not_wait_for_the_endpoint(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        row = make_due_record(user_id=self.make_user(is_active=False))
        UserNotificationChannel.objects.update(paused_at=clock())

        make_engine(memory, clock, inactive_users="skip").deliver_due()

        row.refresh_from_db()
        assert (row.status, row.last_error_code) == (Status.SKIPPED, ErrorCode.USER_INACTIVE)

    def test_unknown_user_has_no_channel_as_before(self, memory: MemoryProvider, clock: Clock) -> None:
        row = make_due_record(user_id=999)

        make_engine(memory, clock, inactive_users="skip").deliver_due()

        row.refresh_from_db()
        assert row.last_error_code != ErrorCode.USER_INACTIVE


def test_drains_that_overlap_leave_the_garbage_collection_as_it_was() -> None:
    before = gc.get_threshold()
    first, second = (engine_module._rare_garbage_collection() for _ in range(2))

    with contextlib.ExitStack() as ends_last:
        with first:
            ends_last.enter_context(second)
            assert gc.get_threshold()[0] > before[0]

    assert gc.get_threshold() == before
