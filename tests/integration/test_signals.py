"""Signals say what became of a notification: once stored with the change, they reach their receivers in order."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dev.waiting import wait_until
from notifications.api import cancel_notification, notify, request_notification, reschedule
from notifications.delivery import circuit_breaker, held_records
from notifications.delivery.admission import hold
from notifications.delivery.claim import claim
from notifications.delivery.engine import Engine
from notifications.delivery.process_drain import ProcessDrain
from notifications.delivery.settle import settle_batch
from notifications.delivery.settlement import build_settlement
from notifications.ingest.signal_webhooks import connect_events_endpoint, disconnect_events_endpoint
from notifications.lifecycle import relay as relay_module
from notifications.lifecycle.events import heard_signals, stored as stored_events, write_events
from notifications.lifecycle.relay import MAX_ATTEMPTS, RelayThread, relay_events
from notifications.models import NotificationEvent, NotificationRecord, UserNotificationChannel
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from notifications.signals import RECORD_SIGNALS, RecordSignal, died
from notifications.states import HoldReason, Outcome
from notifications.testing import Sandbox, deliver_notifications
from tests.support.delivery import NOW, OK, TRY_LATER, Clock, make_due_record, make_engine, options_with
from tests.support.factories import make_record
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db
PATIENCE = 20.0
HOOK_KEY = "canary0123456789"
HOOK_SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
REFUSED = SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="provider_config", error_message="code 19001: invalid")
BAD_TEXT = SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="payload_invalid", error_message="code 9499")
NOT_SENT = SendResult(outcome=Outcome.SKIPPED, error_code="recipient_missing")
Receiver = Callable[..., object]
Connect = Callable[..., None]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a function that connects a receiver to signals, or to all, for this test."""
    connected: list[tuple[Receiver, str]] = []

    def connect_to(receiver: Receiver, *names: str) -> None:
        for name in names or RECORD_SIGNALS:
            RECORD_SIGNALS[name].connect(receiver, weak=False)
            connected.append((receiver, name))

    yield connect_to
    for receiver, name in connected:
        RECORD_SIGNALS[name].disconnect(receiver)


@pytest.fixture
def calls(connect: Connect) -> list[tuple[str, int]]:
    """Name and record of each signal that was sent."""
    seen: list[tuple[str, int]] = []

    def listen(signal: RecordSignal, record_id: int, **kwargs: object) -> None:
        seen.append((signal.name, record_id))

    connect(listen)
    return seen


@pytest.fixture
def channel() -> UserNotificationChannel:
    user = get_user_model().objects.create_user("owner")
    return UserNotificationChannel.objects.create(user=user, webhook_url="https://www.feishu.cn/flow/api/x")


@pytest.fixture(autouse=True)
def _new_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_records, "_last_turn", float("-inf"))


def stored() -> list[tuple[str, int]]:
    return list(NotificationEvent.objects.order_by("id").values_list("name", "record_id"))


def relay_again() -> int:
    """Relay as if every delay had passed."""
    NotificationEvent.objects.filter(next_attempt_at__isnull=False).update(next_attempt_at=Now())
    return relay_events()


def fail_with(text: str) -> Receiver:
    """Return a receiver that raises a ValueError with this text."""

    def fail(**kwargs: object) -> None:
        raise ValueError(text)

    return fail


class TestWhatIsStored:
    @pytest.mark.parametrize(
        ("result", "name", "code"),
        [(OK, "delivered", ""), (BAD_TEXT, "died", "payload_invalid"), (NOT_SENT, "skipped", "recipient_missing")],
    )
    def test_each_final_result_is_one_signal_with_all_arguments(
        self, memory: MemoryProvider, clock: Clock, connect: Connect, result: SendResult, name: str, code: str
    ) -> None:
        received: list[dict[str, Any]] = []

        def listen(**arguments: Any) -> None:
            received.append(arguments)

        connect(listen)
        record = make_due_record(endpoint_id=7, request_key="order-1", round=2)
        memory.script(result)

        make_engine(memory, clock).deliver_due()
        assert relay_events() == 1

        [arguments] = received
        assert len(arguments.pop("event_id")) == 36
        assert arguments == {
            "signal": RECORD_SIGNALS[name], "sender": NotificationRecord, "record_id": record.pk, "occurred_at": NOW,
            "channel": "feishu", "user_id": 42, "endpoint_id": 7, "request_key": "order-1", "dedupe_key": "k1",
            "error_code": code, "round": 2, "hold_reason": "",
        }  # fmt: skip
        assert stored() == []

    def test_a_retry_is_no_signal_and_the_last_failure_is_one(
        self, memory: MemoryProvider, clock: Clock, calls: list[tuple[str, int]]
    ) -> None:
        record = make_due_record(max_attempts=2)
        memory.script(TRY_LATER, TRY_LATER)

        make_engine(memory, clock).deliver_due()
        assert stored() == []

        clock.forward(hours=1)
        make_engine(memory, clock).deliver_due()
        assert stored() == [("died", record.pk)]

    def test_a_message_that_expires_or_is_cancelled_is_skipped_once(
        self, memory: MemoryProvider, clock: Clock, calls: list[tuple[str, int]]
    ) -> None:
        expired, cancelled = make_due_record("k1", expires_at=NOW), make_due_record("k2")

        cancel_notification("k2")
        make_engine(memory, clock).deliver_due()

        assert sorted(stored()) == [("skipped", expired.pk), ("skipped", cancelled.pk)]
        relay_events()
        codes = dict(NotificationRecord.objects.values_list("pk", "last_error_code"))
        assert codes == {expired.pk: "expired", cancelled.pk: "cancelled"}

    def test_records_of_a_paused_channel_are_held_and_released_once(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel, calls: list[tuple[str, int]]
    ) -> None:
        first, second = (make_due_record(key, user_id=channel.user_id).pk for key in ("a", "b"))
        memory.script(REFUSED)
        engine = make_engine(memory, clock, send_slots=1)

        engine.deliver_due()
        clock.forward(hours=2)  # they are looked at again, and are held still
        make_engine(memory, clock, send_slots=1).deliver_due()
        assert stored() == [("held", first), ("held", second)]
        assert [event.payload["hold_reason"] for event in NotificationEvent.objects.all()] == ["channel_paused"] * 2

        circuit_breaker.resume_channel(channel.pk, engine.options, clock)
        assert stored()[2:] == [("released", first), ("released", second)]

        clock.forward(minutes=1)
        make_engine(memory, clock).deliver_due()
        assert relay_events() == 6
        for record in (first, second):
            assert [name for name, of in calls if of == record] == ["held", "released", "delivered"]

    def test_a_failing_probe_does_not_announce_again_that_its_record_is_held(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel, calls: list[tuple[str, int]]
    ) -> None:
        limited = SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_rate_limited", holds_endpoint=True)
        record = make_due_record(user_id=channel.user_id)
        memory.script(limited, limited, OK)

        for _ in range(3):
            make_engine(memory, clock, probe_interval=1.0, retry_base_delay=1.0, retry_max_delay=1.0).deliver_due()
            held_records.release_held_records(channel.pk, options_with(probe_interval=1.0), clock)
            clock.forward(hours=2)

        assert len(memory.requests) == 3
        assert stored() == [("held", record.pk), ("delivered", record.pk)]

    def test_a_rate_limit_holds_nothing_up(self, clock: Clock, calls: list[tuple[str, int]]) -> None:
        make_due_record()
        rows = claim(1, channels=["feishu"], options=options_with(), clock=clock)

        hold(rows, HoldReason.RATE_LIMITED, delay=1, clock=clock)

        assert stored() == []

    def test_a_replay_is_a_signal_with_its_new_round(self, calls: list[tuple[str, int]]) -> None:
        record = make_record("dead", last_error_code="provider_5xx")

        NotificationService().replay(NotificationRecord.objects.all(), None, "fixed")

        [event] = NotificationEvent.objects.all()
        assert (event.name, event.record_id) == ("replayed", record.pk)
        assert (event.payload["round"], event.payload["error_code"]) == (1, "provider_5xx")

    def test_sending_a_held_record_now_releases_it_and_one_that_waits_for_its_retry_is_no_signal(
        self, calls: list[tuple[str, int]]
    ) -> None:
        held = make_record("failed", hold_reason="channel_paused")
        make_record("failed")

        assert NotificationService().send_now(NotificationRecord.objects.all(), None, "now") == 2

        assert stored() == [("released", held.pk)]

    def test_a_result_that_does_not_change_its_record_is_no_signal(
        self, clock: Clock, calls: list[tuple[str, int]]
    ) -> None:
        make_due_record()
        [row] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        NotificationRecord.objects.update(status="sent", lease_token=None, next_attempt_at=None)

        late = build_settlement(row, BAD_TEXT, options_with(), duration=0, age=0)
        settle_batch([late], clock)
        settle_batch([build_settlement(row, OK, options_with(), duration=0, age=0)], clock)

        assert stored() == []

    @pytest.mark.django_db(transaction=True)
    def test_a_change_that_is_rolled_back_takes_its_event_along(self, calls: list[tuple[str, int]]) -> None:
        make_record("dead")

        with transaction.atomic():
            NotificationService().replay(NotificationRecord.objects.all(), None, "fixed")
            transaction.set_rollback(True)

        assert stored() == []

    @pytest.mark.django_db(transaction=True)
    def test_a_result_is_not_stored_without_its_event(
        self, clock: Clock, calls: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_due_record()
        [row] = claim(1, channels=["feishu"], options=options_with(), clock=clock)
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE notification_events ADD CONSTRAINT no_more CHECK (FALSE) NOT VALID")
        try:
            with pytest.raises(Exception, match="no_more"):
                settle_batch([build_settlement(row, OK, options_with(), duration=0, age=0)], clock)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE notification_events DROP CONSTRAINT no_more")

        assert NotificationRecord.objects.get().status == "sending"

    def test_only_signals_that_somebody_listens_for_are_stored(
        self, memory: MemoryProvider, clock: Clock, connect: Connect
    ) -> None:
        connect(lambda **kwargs: None, "died")
        make_due_record("k1"), make_due_record("k2")
        memory.script(OK, BAD_TEXT)

        make_engine(memory, clock, send_slots=1).deliver_due()

        assert [name for name, _record in stored()] == ["died"]

    def test_without_a_receiver_nothing_is_written_and_no_statement_is_added(
        self, memory: MemoryProvider, clock: Clock, channel: UserNotificationChannel
    ) -> None:
        make_due_record("k1"), make_due_record("k2", expires_at=NOW), make_record("dead")
        make_due_record("k3", user_id=channel.user_id)
        memory.script(OK, REFUSED)
        with CaptureQueriesContext(connection) as queries:
            make_engine(memory, clock, send_slots=1).deliver_due()
            circuit_breaker.resume_channel(channel.pk, options_with(), clock)
            NotificationService().replay(NotificationRecord.objects.all(), None, "fixed")
            NotificationService().cancel(NotificationRecord.objects.all(), None, "over")
            assert relay_events() == 0

        assert heard_signals() == frozenset()
        assert [query["sql"] for query in queries if "notification_events" in query["sql"]] == []
        [row] = claim(1, channels=["feishu"], options=options_with(), clock=clock, ids=[make_due_record("k4").pk])
        with CaptureQueriesContext(connection) as queries:
            settle_batch([build_settlement(row, OK, options_with(), duration=0, age=0)], clock)
        assert len(queries) == 1


class TestRelay:
    def test_events_of_a_record_are_sent_in_order_and_wait_for_an_earlier_one(self, connect: Connect) -> None:
        seen: list[tuple[str, int]] = []
        broken = True

        def on_death(record_id: int, **kwargs: object) -> None:
            if broken and record_id == bad.pk:
                raise ValueError("not now")
            seen.append(("died", record_id))

        connect(on_death, "died")
        connect(lambda record_id, **kwargs: seen.append(("replayed", record_id)), "replayed")
        bad, good = make_record("dead"), make_record("dead")
        write_events([(bad.pk, "died"), (good.pk, "died")])
        write_events([(bad.pk, "replayed"), (good.pk, "replayed")])

        assert relay_events() == 2
        assert seen == [("died", good.pk), ("replayed", good.pk)]
        assert stored() == [("died", bad.pk), ("replayed", bad.pk)]

        broken = False
        assert relay_events() == 0  # it is too early
        assert relay_again() == 2
        assert seen[2:] == [("died", bad.pk), ("replayed", bad.pk)]

    def test_a_failing_receiver_is_called_again_after_growing_delays(self, connect: Connect) -> None:
        connect(fail_with("x"), "died")
        write_events([(make_record("dead").pk, "died")])

        delays = []
        for _ in range(3):
            relay_again()
            [wait] = NotificationEvent.objects.values_list(F("next_attempt_at") - Now(), flat=True)
            delays.append(round(wait.total_seconds()))

        assert delays == [5, 10, 20]

    def test_the_text_of_a_receivers_exception_is_stored_and_logged_nowhere(
        self, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        connect(fail_with("hunter2"), "died")
        write_events([(make_record("dead").pk, "died")])

        relay_events()

        [event] = NotificationEvent.objects.all()
        assert event.error.endswith("fail: ValueError")
        assert "ValueError" in caplog.text
        assert "hunter2" not in caplog.text + event.error

    def test_an_event_is_given_up_after_its_attempts_and_stays_with_its_error(
        self, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[int] = []
        connect(fail_with("x"), "died")
        connect(lambda record_id, **kwargs: seen.append(record_id), "replayed")
        record = make_record("dead")
        write_events([(record.pk, "died")])
        write_events([(record.pk, "replayed")])

        for _ in range(MAX_ATTEMPTS + 1):
            relay_again()

        [event] = NotificationEvent.objects.all()
        assert (event.name, event.attempts, event.next_attempt_at) == ("died", MAX_ATTEMPTS, None)
        assert event.error.endswith("fail: ValueError")
        assert seen == [record.pk]  # the later event does not wait for ever
        assert [line.levelno for line in caplog.records if "given up" in line.message] == [logging.ERROR]

    def test_an_event_whose_receiver_always_ends_the_process_is_given_up(self, connect: Connect) -> None:
        connect(lambda **kwargs: pytest.fail("it would end the process again"), "died")
        write_events([(make_record("dead").pk, "died")])
        NotificationEvent.objects.update(attempts=MAX_ATTEMPTS)

        assert relay_events() == 0

        [event] = NotificationEvent.objects.all()
        assert (event.next_attempt_at, event.error) == (None, "the process ended while a receiver ran")

    def test_a_receiver_that_has_taken_an_event_is_not_called_again_because_of_another_one(
        self, connect: Connect
    ) -> None:
        seen: list[int] = []
        connect(fail_with("x"), "died")
        connect(lambda record_id, **kwargs: seen.append(record_id), "died")
        connect(fail_with("x"), "died")
        write_events([(make_record("dead").pk, "died")])

        for _ in range(3):
            relay_again()

        assert len(seen) == 1

    def test_what_a_receiver_wrote_before_it_failed_is_undone_and_the_rest_is_kept(self, connect: Connect) -> None:
        def write(**kwargs: object) -> None:
            Group.objects.create(name="kept")

        def write_and_fail(**kwargs: object) -> None:
            Group.objects.create(name="undone")
            Group.objects.create(name="undone")  # the constraint refuses it

        connect(write_and_fail, "died")
        connect(write, "died")
        write_events([(make_record("dead").pk, "died")])

        relay_events()

        assert list(Group.objects.values_list("name", flat=True)) == ["kept"]
        assert NotificationEvent.objects.get().error.endswith("write_and_fail: IntegrityError")

    def test_an_asynchronous_receiver_is_called(self, connect: Connect) -> None:
        seen: list[int] = []

        async def listen(record_id: int, **kwargs: object) -> None:
            seen.append(record_id)

        connect(listen, "died")
        record = make_record("dead")
        write_events([(record.pk, "died")])

        assert relay_events() == 1
        assert seen == [record.pk]

    def test_events_that_only_other_processes_hear_are_left_to_them_for_a_day(self, connect: Connect) -> None:
        def first(**kwargs: object) -> None:
            pytest.fail("it is disconnected")

        record = make_record("dead")
        connect(lambda **kwargs: None, "replayed")
        died.connect(first)
        write_events([(record.pk, "died")])
        write_events([(record.pk, "replayed")])
        died.disconnect(first)

        assert relay_events() == 0
        assert stored() == [("died", record.pk), ("replayed", record.pk)]

        NotificationEvent.objects.update(occurred_at=Now() - timedelta(days=2))
        assert relay_events() == 1
        [event] = NotificationEvent.objects.all()
        assert (event.name, event.next_attempt_at, event.error) == ("died", None, "nobody listens")

    def test_a_batch_that_takes_long_is_given_back_without_an_attempt(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "BATCH_SECONDS", 0.0)
        connect(lambda **kwargs: None, "died")
        write_events([(make_record("dead").pk, "died") for _ in range(3)])
        left = [True, True, False]

        assert relay_events(should_stop=lambda: not left.pop(0)) == 0

        rows = NotificationEvent.objects.filter(next_attempt_at__lte=Now()).values_list("attempts", flat=True)
        assert list(rows) == [0, 0, 0]

    def test_taking_events_reads_an_index_in_its_order_without_statistics(self, connect: Connect) -> None:
        connect(lambda **kwargs: None, "died")
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO notification_events"
                " (record_id, name, payload, received_by, occurred_at, attempts, next_attempt_at, error)"
                " SELECT n, 'died', '{}', '[]', now(), 0, now(), '' FROM generate_series(1, 20000) AS n"
            )
        with CaptureQueriesContext(connection) as queries:
            relay_module._take(20)
        [forbid_sort, take] = [query["sql"] for query in queries if "SAVEPOINT" not in query["sql"]]
        with connection.cursor() as cursor:
            cursor.execute(f"{forbid_sort} EXPLAIN {take}")
            plan = "\n".join(row[0] for row in cursor.fetchall())

        assert "Index Scan using event_due" in plan
        assert "Index" in plan.partition("Anti Join")[2].partition("event_of_record")[0]
        assert "Seq Scan" not in plan
        assert "Sort" not in plan

    def test_its_time_is_bounded(self, connect: Connect) -> None:
        connect(lambda **kwargs: None, "died")
        write_events([(make_record("dead").pk, "died")])

        assert relay_events(budget=0) == 0

    def test_a_test_of_a_project_gets_its_signals_from_deliver_notifications(
        self, notifications_memory: MemoryProvider, calls: list[tuple[str, int]], make_user: Callable[..., Any]
    ) -> None:
        user = make_user()
        UserNotificationChannel.objects.create(user=user, channel="feishu", webhook_url="https://www.feishu.cn/flow/x")
        accepted = request_notification(payload(user_id=user.pk))

        deliver_notifications()

        assert calls == [("delivered", accepted.record_id)]


class TestMessagesOfNotify:
    """Their changes by the caller are told, too."""

    def test_a_message_that_is_replaced_after_its_death_is_replayed_and_a_held_one_released(
        self, calls: list[tuple[str, int]], make_user: Callable[..., Any]
    ) -> None:
        user = make_user(webhook_url="https://www.feishu.cn/flow/api/x")
        [dead], [held] = (notify(user, "text", key=key) for key in ("dead", "held"))
        dead_record = NotificationRecord.objects.filter(pk=dead.record_id)
        dead_record.update(status="dead", next_attempt_at=None)
        NotificationRecord.objects.filter(pk=held.record_id).update(hold_reason="channel_paused")

        notify(user, "other", key="dead", replace=True)
        reschedule("held", timezone.now() + timedelta(hours=1))

        assert stored() == [("replayed", dead.record_id), ("released", held.record_id)]

    def test_a_held_message_that_gets_another_time_by_replace_is_released(
        self, calls: list[tuple[str, int]], make_user: Callable[..., Any]
    ) -> None:
        user = make_user(webhook_url="https://www.feishu.cn/flow/api/x")
        [held] = notify(user, "text", key="held")
        NotificationRecord.objects.update(hold_reason="channel_paused")

        notify(user, "other", key="held", replace=True)
        assert stored() == []  # it is still held

        notify(user, "other", key="held", replace=True, deliver_at=timezone.now() + timedelta(hours=1))
        assert stored() == [("released", held.record_id)]


@pytest.mark.django_db(transaction=True)
class TestEventsEndpoint:
    @pytest.fixture
    def hook(self, change: Callable[..., None]) -> Iterator[Sandbox]:
        """The receiver of the endpoint `crm`, which EVENTS_ENDPOINT names."""
        with Sandbox() as sandbox:
            change(SANDBOX_ORIGINS=[sandbox.origin], EVENTS_ENDPOINT="crm")
            connect_events_endpoint()
            yield sandbox
            disconnect_events_endpoint()

    @pytest.fixture
    def endpoint(self, hook: Sandbox) -> UserNotificationChannel:
        return UserNotificationChannel.objects.create(
            label="crm", channel="webhook", webhook_url=f"{hook.origin}/webhook/{HOOK_KEY}", auth_type="signature",
            bearer_token=HOOK_SECRET,
        )  # fmt: skip

    def test_each_event_is_one_signed_webhook_and_makes_no_other_event(
        self, hook: Sandbox, endpoint: UserNotificationChannel, memory: MemoryProvider, clock: Clock
    ) -> None:
        record = make_due_record(request_key="order-1")
        make_engine(memory, clock).deliver_due()
        [event] = NotificationEvent.objects.all()

        assert relay_events() == 1
        assert Engine().deliver_due().sent == 1
        assert relay_events() == 0
        assert Engine().deliver_due().sent == 0

        [delivery] = hook.deliveries(HOOK_KEY)
        assert delivery.body["type"] == "notification.delivered"
        assert delivery.body["data"]["data"] == {
            "event_id": event.payload["event_id"], "record_id": record.pk, "occurred_at": NOW.isoformat(),
            "channel": "feishu", "user_id": 42, "endpoint_id": None, "request_key": "order-1", "dedupe_key": "k1",
            "error_code": "", "round": 0, "hold_reason": "",
        }  # fmt: skip
        own = NotificationRecord.objects.get(endpoint=endpoint)
        assert (own.kind, own.order_key, own.priority) == ("notification.delivered", f"event:{record.pk}", 0)
        assert NotificationRecord.objects.count() == 2
        assert stored() == []

    def test_an_event_that_is_relayed_again_is_sent_once(
        self, endpoint: UserNotificationChannel, connect: Connect
    ) -> None:
        connect(fail_with("x"), "died")
        write_events([(make_record("dead").pk, "died")])
        for _ in range(3):
            relay_again()
            NotificationEvent.objects.update(received_by=[])  # as if the process had ended before it was noted

        assert NotificationRecord.objects.filter(endpoint=endpoint).count() == 1

    def test_without_the_endpoint_events_wait_for_it(self, hook: Sandbox) -> None:
        write_events([(make_record("dead").pk, "died")])

        assert relay_events() == 0

        [event] = NotificationEvent.objects.all()
        assert event.error.endswith("send_event: EventsEndpointMissing")

    def test_a_process_connects_it_at_its_start_only_if_it_is_set(self, change: Callable[..., None]) -> None:
        try:
            connect_events_endpoint()
            assert heard_signals() == frozenset()

            change(EVENTS_ENDPOINT="crm")
            apps.get_app_config("notifications").ready()
            assert heard_signals() == frozenset(RECORD_SIGNALS)
        finally:
            disconnect_events_endpoint()


@pytest.mark.django_db(transaction=True)
class TestThreads:
    def test_the_event_that_one_process_relays_and_its_successors_are_left_alone_by_others(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "FIRST_DELAY_SECONDS", 0.0)
        entered, gate = threading.Event(), threading.Event()
        seen: list[str] = []

        def slow(**kwargs: object) -> None:
            entered.set()
            assert gate.wait(PATIENCE)
            seen.append("died")

        connect(slow, "died")
        connect(lambda **kwargs: seen.append("replayed"), "replayed")
        record = make_record("dead")
        write_events([(record.pk, "died")])
        write_events([(record.pk, "replayed")])

        def other_process() -> None:
            relay_events()
            connection.close()

        other = threading.Thread(target=other_process)
        other.start()
        try:
            assert entered.wait(PATIENCE)
            assert relay_events() == 0  # its delay has passed, and its row is locked
            assert seen == []
        finally:
            gate.set()
            other.join()
        assert seen == ["died", "replayed"]
        assert stored() == []

    def test_a_receiver_that_hangs_delays_no_delivery(
        self, connect: Connect, change: Callable[..., None], make_user: Callable[..., Any]
    ) -> None:
        change(PROVIDERS={"feishu": f"{__name__}.Quick"})
        entered, gate = threading.Event(), threading.Event()

        def hang(**kwargs: object) -> None:
            entered.set()
            assert gate.wait(PATIENCE)

        connect(hang, "delivered")
        user = make_user(webhook_url="https://www.feishu.cn/flow/api/x")
        drain = ProcessDrain(threading.Event())
        try:
            request_notification(payload(user_id=user.pk, dedupe_key="first"))
            drain.run()
            assert entered.wait(PATIENCE)

            request_notification(payload(user_id=user.pk, dedupe_key="second"))
            drain.run()

            assert NotificationRecord.objects.get(dedupe_key="second").status == "sent"
            assert not gate.is_set()
        finally:
            gate.set()
            drain.delayed_nudge.cancel()
            wait_until(lambda: not NotificationEvent.objects.exists(), "both events are relayed")
            drain.relay.stop(PATIENCE)

    def test_the_thread_is_woken_by_the_commit_of_an_event(self, connect: Connect) -> None:
        seen: list[int] = []
        connect(lambda record_id, **kwargs: seen.append(record_id), "replayed")
        make_record("dead")
        stored_events.clear()

        with transaction.atomic():
            NotificationService().replay(NotificationRecord.objects.all(), None, "fixed")
            assert not stored_events.is_set()
        assert stored_events.is_set()

    def test_a_process_without_receivers_starts_no_thread(self) -> None:
        relay = RelayThread()

        relay.start()

        assert "signal-relay" not in [thread.name for thread in threading.enumerate()]

    def test_the_thread_goes_on_after_an_error_of_the_database(
        self, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(relay_module, "LOOK_SECONDS", 0.01)
        monkeypatch.setattr(relay_module, "_TAKE", "SELECT 1 / 0")
        seen: list[int] = []
        connect(lambda record_id, **kwargs: seen.append(record_id), "died")
        write_events([(make_record("dead").pk, "died")])
        relay = RelayThread()
        relay.start()
        try:
            wait_until(lambda: "signals put off: DataError" in caplog.text, "the error is logged")
            monkeypatch.undo()
            wait_until(lambda: len(seen) == 1, "the event is relayed")
        finally:
            relay.stop(PATIENCE)


class Quick:
    """Accepts every message at once."""

    channel = "feishu"

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Succeed."""
        return OK
