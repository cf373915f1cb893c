"""Messages of one order key are sent one after the other, in the order of their ids."""

from __future__ import annotations

import os
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from django.db import IntegrityError, connection, transaction

from dev.waiting import wait_until
from notifications.admin.record_explanations import HOLD_EXPLANATIONS, explain_record
from notifications.conf import service_options
from notifications.delivery.claim import Claimed, claim, release_claims
from notifications.delivery.engine import Engine
from notifications.delivery.fairness import look_at_due
from notifications.delivery.settle import settle_batch
from notifications.delivery.settlement import build_settlement
from notifications.ingest.insert import insert_requests
from notifications.ingest.payload import NotificationRequest
from notifications.models import NotificationRecord
from notifications.ordering import key_order
from notifications.ordering.key_order import RECHECK_SECONDS, let_next_go
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from notifications.states import HoldReason, Outcome, Status
from tests.support.delivery import NOW, OK, TRY_LATER, Clock, make_due_record, make_engine, options_with
from tests.support.factories import make_record

REFUSED = SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="payload_invalid")
KEY = "order-1"
PATIENCE = 30.0


def make_ordered(*keys: str, **fields: Any) -> list[int]:
    """Return the ids of due records of one order key."""
    return [make_due_record(key, **({"order_key": KEY} | fields)).pk for key in keys]


def sent_keys(memory: MemoryProvider) -> list[str]:
    keys = dict(NotificationRecord.objects.values_list("pk", "dedupe_key"))
    return [keys[request.notification_id] for request in memory.requests]


def states() -> dict[str, tuple[str, str]]:
    """Return status and hold reason of each record by its dedupe key."""
    rows = NotificationRecord.objects.values_list("dedupe_key", "status", "hold_reason")
    return {key: (status, reason) for key, status, reason in rows}


def claim_all(clock: Clock | None = None) -> list[Claimed]:
    return claim(100, channels=["feishu"], options=service_options(), clock=clock)


def settle(rows: list[Claimed], clock: Clock | None = None, result: SendResult = OK) -> None:
    settle_batch([build_settlement(row, result, service_options(), duration=0, age=0) for row in rows], clock)


@pytest.fixture
def capture(django_capture_on_commit_callbacks: Any) -> Callable[..., Any]:
    """Run what a cancellation does after its commit, which the transaction around a test never makes."""

    def run(function: Callable[..., Any], *args: Any) -> Any:
        with django_capture_on_commit_callbacks(execute=True):
            return function(*args)

    return run


class CountingProvider(MemoryProvider):
    """Notes how many messages of the order key are in flight together. Their senders meet others at a barrier."""

    def __init__(self, ordered: set[int]) -> None:
        super().__init__()
        self.ordered = ordered
        self.flying = 0
        self.most = 0
        self._count = threading.Lock()

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        if request.notification_id not in self.ordered:
            return super().send(request, endpoint)
        with self._count:
            self.flying += 1
            self.most = max(self.most, self.flying)
        try:
            return super().send(request, endpoint)
        finally:
            with self._count:
                self.flying -= 1


@pytest.mark.django_db
class TestOrder:
    def test_one_drain_sends_all_messages_of_a_key_by_their_ids_and_one_at_a_time(self, clock: Clock) -> None:
        ordered = make_ordered(*(f"k{number}" for number in range(20)))
        others = [make_due_record(f"other{number}").pk for number in range(20)]
        provider = CountingProvider(set(ordered))

        result = Engine(options=options_with(), clock=clock, providers={"feishu": provider}).deliver_due()

        sent = [request.notification_id for request in provider.requests]
        assert [pk for pk in sent if pk in ordered] == ordered
        assert sorted(pk for pk in sent if pk in others) == others
        assert (result.sent, result.has_more, provider.most) == (40, False, 1)

    def test_a_priority_and_an_earlier_time_do_not_overtake(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1")
        make_ordered("urgent", priority=3)
        make_ordered("older", next_attempt_at=NOW - timedelta(hours=1))

        make_engine(memory, clock).deliver_due()

        assert sent_keys(memory) == ["k1", "urgent", "older"]

    def test_later_messages_wait_for_the_retry_of_the_first(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", "k2", "k3")
        memory.script(TRY_LATER, TRY_LATER)
        engine = make_engine(memory, clock)

        engine.deliver_due()
        assert states() == {"k1": ("failed", ""), "k2": ("pending", "order"), "k3": ("pending", "order")}
        clock.forward(seconds=300)
        engine.deliver_due()
        assert sent_keys(memory) == ["k1", "k1"]
        clock.forward(seconds=600)
        engine.deliver_due()

        assert sent_keys(memory) == ["k1", "k1", "k1", "k2", "k3"]

    def test_later_messages_wait_for_the_time_of_the_first(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("later", next_attempt_at=NOW + timedelta(hours=2))
        make_ordered("now")
        engine = make_engine(memory, clock)

        for _hour in range(3):
            engine.deliver_due()
            clock.forward(hours=1)

        assert sent_keys(memory) == ["later", "now"]

    def test_keys_and_channels_do_not_wait_for_each_other(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", status=Status.FAILED, next_attempt_at=NOW + timedelta(hours=1))
        make_ordered("other key", order_key="order-2")
        make_ordered("other channel", channel="webhook")
        make_ordered("no key", order_key="")

        Engine(options=options_with(), clock=clock, providers={"feishu": memory, "webhook": memory}).deliver_due()

        assert sorted(sent_keys(memory)) == ["no key", "other channel", "other key"]

    def test_a_message_that_commits_late_goes_next_and_overtakes_none_in_flight(self, clock: Clock) -> None:
        first, late, third = make_ordered("k1", "late", "k3")
        NotificationRecord.objects.filter(pk=late).update(next_attempt_at=NOW + timedelta(days=1), order_key="")
        settle(claim_all(clock), clock)
        [row] = claim_all(clock)
        NotificationRecord.objects.filter(pk=late).update(next_attempt_at=NOW, order_key=KEY)  # it is committed now

        assert (row.record_id, claim_all(clock)) == (third, [])
        settle([row], clock)

        assert [row.record_id for row in claim_all(clock)] == [late]
        assert first < late < third

    def test_a_late_message_goes_while_the_one_in_flight_is_given_back(self, clock: Clock) -> None:
        [late] = make_ordered("late", order_key="")
        make_ordered("k2")
        [row] = [row for row in claim_all(clock) if row.order_key]
        NotificationRecord.objects.filter(pk=late).update(
            order_key=KEY, status=Status.PENDING, lease_token=None, next_attempt_at=NOW
        )
        assert claim_all(clock) == []

        release_claims([row], delay=60, clock=clock, hold_reason=HoldReason.RATE_LIMITED)

        assert [row.record_id for row in claim_all(clock)] == [late]

    def test_messages_behind_a_lost_worker_wait_for_its_recovery(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", "k2")
        claim_all(clock)  # the worker dies
        engine = make_engine(memory, clock)

        engine.deliver_due()
        assert (sent_keys(memory), states()["k2"]) == ([], ("pending", "order"))
        clock.forward(seconds=service_options().lease + 1)
        engine.deliver_due()

        assert sent_keys(memory) == ["k1", "k2"]
        lost = NotificationRecord.objects.get(dedupe_key="k1").attempts.values_list("outcome", flat=True)
        assert list(lost) == ["lost", "success"]

    def test_an_expired_first_message_lets_the_next_go(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", expires_at=NOW)
        make_ordered("k2")

        make_engine(memory, clock).deliver_due()

        assert (sent_keys(memory), states()["k1"][0]) == (["k2"], "skipped")

    def test_a_drain_whose_time_ends_says_that_the_next_message_is_due(
        self, memory: MemoryProvider, clock: Clock
    ) -> None:
        make_ordered("k1", "k2")
        engine = make_engine(memory, clock)
        answers = iter([False])
        engine.should_stop = lambda: next(answers, True)  # only the first claim is made

        assert engine.deliver_due().has_more
        assert states()["k2"] == ("pending", "")

    def test_a_drain_goes_on_with_what_its_last_settlement_let_go(self, memory: MemoryProvider, clock: Clock) -> None:
        """Two slots, both taken: the drain claims before it settles, and finds nothing due."""
        make_ordered("k1", "k2")

        assert make_engine(memory, clock, send_slots=2).deliver_due().sent == 2

    def test_a_record_that_nobody_let_go_goes_at_its_recheck(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", "k2")
        claim_all(clock)
        NotificationRecord.objects.filter(dedupe_key="k1").delete()

        clock.forward(seconds=RECHECK_SECONDS)
        make_engine(memory, clock).deliver_due()

        assert sent_keys(memory) == ["k2"]

    def test_the_recheck_of_any_record_lets_the_first_go(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", "k2", hold_reason=HoldReason.ORDER, next_attempt_at=NOW + timedelta(hours=1))
        NotificationRecord.objects.filter(dedupe_key="k2").update(next_attempt_at=NOW)

        make_engine(memory, clock).deliver_due()

        assert sent_keys(memory) == ["k1", "k2"]

    def test_a_request_stores_its_order_key(self) -> None:
        request = NotificationRequest(user_id=42, preview_id="p", dedupe_key="k", target_url="/a", order_key=KEY)

        insert_requests([request], options=service_options())
        insert_requests(
            [NotificationRequest(user_id=42, preview_id="p", dedupe_key="k2", target_url="/a")],
            options=service_options(),
        )

        assert dict(NotificationRecord.objects.values_list("dedupe_key", "order_key")) == {"k": KEY, "k2": ""}

    def test_the_database_refuses_a_second_message_of_a_key_in_flight(self) -> None:
        make_ordered("k1", status=Status.SENDING)
        make_ordered("other channel", status=Status.SENDING, channel="webhook")
        make_ordered("a", "b", status=Status.SENDING, order_key="")

        with pytest.raises(IntegrityError, match="notification_order_in_flight"), transaction.atomic():
            make_ordered("k2", status=Status.SENDING)


@pytest.mark.django_db
class TestOperators:
    def test_a_replayed_message_goes_before_those_that_wait(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", "k2", "k3", "k4")
        memory.script(REFUSED, TRY_LATER)
        engine = make_engine(memory, clock)
        service = NotificationService(options=service_options(), clock=clock, providers={"feishu": memory})
        engine.deliver_due()
        service.cancel(NotificationRecord.objects.filter(dedupe_key="k4"), None, "test")

        replayed = NotificationRecord.objects.filter(dedupe_key__in=["k1", "k4"])
        assert service.replay(replayed, None, "test", force=True) == 2
        engine.deliver_due()
        clock.forward(seconds=300)
        engine.deliver_due()

        assert sent_keys(memory) == ["k1", "k2", "k1", "k4", "k2", "k3"]

    def test_a_replayed_message_waits_for_the_one_in_flight(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", "k2", "k3")
        service = NotificationService(options=service_options(), clock=clock, providers={"feishu": memory})
        settle(claim_all(clock), clock, REFUSED)
        rows = claim_all(clock)

        service.replay(NotificationRecord.objects.filter(dedupe_key="k1"), None, "test")

        assert claim_all(clock) == []
        settle(rows, clock)
        assert [row.dedupe_key for row in claim_all(clock)] == ["k1"]

    def test_cancelling_the_first_lets_the_next_go(
        self, memory: MemoryProvider, clock: Clock, capture: Callable[..., Any]
    ) -> None:
        make_ordered("k1", "k2", "k3")
        memory.script(TRY_LATER)
        engine = make_engine(memory, clock)
        engine.deliver_due()
        service = NotificationService(options=service_options(), clock=clock, providers={"feishu": memory})

        assert capture(service.cancel, NotificationRecord.objects.filter(dedupe_key__in=["k1", "k2"]), None, "x") == 2
        engine.deliver_due()

        assert sent_keys(memory) == ["k1", "k3"]

    def test_a_dead_message_lets_the_next_go(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered("k1", "k2")
        memory.script(REFUSED)

        make_engine(memory, clock).deliver_due()

        assert states() == {"k1": ("dead", ""), "k2": ("sent", "")}
        assert NotificationRecord.objects.cancellable().count() == 0

    @pytest.mark.parametrize("operation", ["replay", "cancel"])
    def test_a_dead_message_blocks_its_key_until_it_is_replayed_or_cancelled(
        self,
        operation: str,
        memory: MemoryProvider,
        clock: Clock,
        change: Callable[..., None],
        capture: Callable[..., Any],
    ) -> None:
        change(ORDER_AFTER_DEAD="block")
        make_ordered("k1", "k2", "k3")
        make_ordered("other", order_key="order-2")
        memory.script(REFUSED)
        engine = make_engine(memory, clock)
        for _hour in range(3):
            engine.deliver_due()
            clock.forward(hours=1)
        assert sent_keys(memory) == ["k1", "other"]

        service = NotificationService(options=service_options(), clock=clock, providers={"feishu": memory})
        dead = NotificationRecord.objects.filter(status=Status.DEAD)
        assert capture(getattr(service, operation), dead, None, "test") == 1
        engine.deliver_due()

        assert sent_keys(memory) == ["k1", "other", *(["k1"] if operation == "replay" else []), "k2", "k3"]

    def test_a_message_that_waits_for_its_key_is_not_sent_now(self, memory: MemoryProvider, clock: Clock) -> None:
        make_record("failed", order_key=KEY)
        held = make_record("pending", order_key=KEY, hold_reason=HoldReason.ORDER)

        assert held not in NotificationRecord.objects.deferred()
        assert list(NotificationRecord.objects.blocked_by_order()) == [held]

    def test_the_page_of_a_record_says_that_it_waits_for_an_earlier_one(self) -> None:
        record = make_record("pending", order_key=KEY, hold_reason=HoldReason.ORDER)

        assert explain_record(record) == [str(HOLD_EXPLANATIONS[HoldReason.ORDER])]
        assert record.get_hold_reason_display() == "an earlier message of its order key"


@pytest.mark.django_db
class TestFairness:
    def test_the_newest_share_is_for_messages_without_an_order_key(self, memory: MemoryProvider, clock: Clock) -> None:
        for number in range(60):
            make_due_record(f"old{number}", user_id=number, next_attempt_at=NOW - timedelta(seconds=100 - number))
        make_ordered("ordered", user_id=100, next_attempt_at=NOW)
        make_due_record("plain", user_id=101, next_attempt_at=NOW)

        candidates = look_at_due(["feishu"], 4, clock)
        make_engine(memory, clock, send_slots=4).deliver_due()

        assert {item.ordered for item in candidates if item.newest} == {True, False}
        sent = sent_keys(memory)
        assert sent.index("plain") < 20
        assert sent[-1] == "ordered"

    def test_a_backlog_of_one_key_does_not_stop_the_others(self, memory: MemoryProvider, clock: Clock) -> None:
        make_ordered(*(f"k{number}" for number in range(50)), next_attempt_at=NOW - timedelta(minutes=1))
        for number in range(20):
            make_due_record(f"other{number}", user_id=100 + number)

        result = make_engine(memory, clock, send_slots=4).deliver_due()

        sent = sent_keys(memory)
        assert [key for key in sent if key.startswith("k")] == [f"k{number}" for number in range(50)]
        assert (result.sent, result.has_more) == (70, False)
        assert sent.index("other19") < 60


@pytest.fixture
def other_session(transactional_db: None) -> Iterator[Any]:
    """A second session, whose transaction the test commits."""
    with closing(psycopg2.connect(os.environ["DATABASE_URL"], dbname=connection.settings_dict["NAME"])) as session:
        yield session


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        try:
            return function()
        finally:
            connection.close()

    return run


def wait_until_blocked(session: Any) -> None:
    """Wait until another session waits for a lock of this one."""

    def blocked() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid)))",
                [session.info.backend_pid],
            )
            return bool(cursor.fetchone()[0])

    wait_until(blocked, "the other session is waited for", PATIENCE)


@pytest.mark.django_db(transaction=True)
class TestConcurrency:
    def test_claims_at_the_same_moment_never_take_two_messages_of_a_key(self) -> None:
        """Eight workers claim and settle until all is sent. A barrier lets each round begin together."""
        keys, each, workers = 6, 5, 8
        for number in range(keys * each):
            make_due_record(f"k{number}", order_key=f"key-{number % keys}", next_attempt_at=NOW)
        barrier = threading.Barrier(workers)
        guard = threading.Lock()
        flying: dict[str, int] = defaultdict(int)
        sent: dict[str, list[int]] = defaultdict(list)
        problems: list[str] = []

        def work() -> None:
            for _round in range(4 * each):
                barrier.wait(PATIENCE)
                rows = claim(3, channels=["feishu"], options=service_options(), clock=None)
                with guard:
                    for row in rows:
                        flying[row.order_key] += 1
                        sent[row.order_key].append(row.record_id)
                        if flying[row.order_key] > 1:
                            problems.append(row.order_key)
                barrier.wait(PATIENCE)
                with guard:
                    for row in rows:
                        flying[row.order_key] -= 1
                if rows:
                    settle(rows)

        with ThreadPoolExecutor(workers) as pool:
            for future in [pool.submit(in_thread(work)) for _ in range(workers)]:
                future.result(PATIENCE * 2)

        assert problems == []
        assert NotificationRecord.objects.by_status() == {"sent": keys * each}
        assert {key: pks == sorted(pks) and len(pks) for key, pks in sent.items()} == {
            f"key-{number}": each for number in range(keys)
        }

    def test_a_claim_that_meets_another_one_of_its_key_makes_its_record_wait(self, other_session: Any) -> None:
        first, second = make_ordered("k1", "k2")
        with other_session.cursor() as cursor:  # a claim that did not see the first record, which had not committed
            cursor.execute(
                "UPDATE notification_records SET status = 'sending', lease_token = %s,"
                " next_attempt_at = now() + interval '1 hour' WHERE id = %s",
                [str(uuid.uuid4()), second],
            )
        with ThreadPoolExecutor(1) as pool:
            claimed = pool.submit(in_thread(claim_all))
            wait_until_blocked(other_session)
            other_session.commit()

            assert claimed.result(PATIENCE) == []

        assert states() == {"k1": ("pending", "order"), "k2": ("sending", "")}
        let_next_go([("feishu", KEY)], None)
        assert states()["k1"] == ("pending", "order"), "one is in flight"
        assert first < second

    def test_a_settlement_between_a_claims_look_and_its_hold_is_not_missed(self, other_session: Any) -> None:
        first, _second = make_ordered("k1", "k2")
        [row] = claim_all()
        NotificationRecord.objects.filter(dedupe_key="k2").update(next_attempt_at=NOW, hold_reason="")
        with other_session.cursor() as cursor:  # a settlement has the key, and has not committed yet
            parameters = {"channels": ["feishu"], "keys": [KEY]}
            cursor.execute(key_order._LOCK_KEYS, parameters)
            cursor.execute(
                "UPDATE notification_records SET status = 'sent', lease_token = NULL, next_attempt_at = NULL"
                " WHERE id = %s",
                [first],
            )
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(
                in_thread(lambda: claim(10, channels=["feishu"], options=service_options(), clock=None))
            )
            wait_until_blocked(other_session)
            other_session.commit()

            claims = found.result(PATIENCE)
            assert (list(claims), claims.blocked) == ([], 1)

        assert states() == {"k1": ("sent", ""), "k2": ("pending", "")}
        assert row.record_id == first
        assert [row.dedupe_key for row in claim_all()] == ["k2"]

    def test_an_open_transaction_of_a_cancellation_holds_up_no_settlement(self, other_session: Any) -> None:
        make_ordered("k1", "k2", "k3")
        rows = claim_all()
        with other_session.cursor() as cursor:
            cursor.execute("SELECT FROM notification_records WHERE dedupe_key = 'k2' FOR UPDATE")

        settle(rows)  # it would wait for ever

        assert states() == {"k1": ("sent", ""), "k2": ("pending", "order"), "k3": ("pending", "order")}
        other_session.rollback()
