"""A nudge reaches a worker that listens for notifications of PostgreSQL, and others if nobody does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction

from dev.waiting import wait_until
from notifications.api import request_notification
from notifications.broker import notify_wakeups, nudge as nudge_module
from notifications.broker.notify_wakeups import CLEAR, NotifyListener, count_notify_listeners
from notifications.broker.nudge import mark_nudge_received, nudge, nudge_all
from notifications.conf import service_options
from notifications.delivery.claim import claim
from notifications.delivery.engine import Engine
from notifications.testing import using_memory
from tests.support.payloads import payload_of

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE = 20.0
Change = Callable[..., None]


@pytest.fixture(autouse=True)
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages of Celery that were queued. No wake-up is pending."""
    queued: list[str] = []
    monkeypatch.setattr(nudge_module, "_publish", lambda task, *args, **kwargs: queued.append(task))
    mark_nudge_received()
    execute(CLEAR)
    return queued


def execute(statement: str) -> Any:
    """Run a statement; return its first value, if it returns rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
    return rows[0][0] if rows else None


class Listening:
    """A listener in a thread, and the wake-ups it took."""

    def __init__(self) -> None:
        self.wakeups = 0
        self.able: list[bool] = []
        self.stopping = threading.Event()
        self.listener = NotifyListener(stopping=self.stopping, on_wakeup=self._count)
        self.thread = threading.Thread(target=lambda: self.able.append(self.listener.listen()))

    def _count(self) -> None:
        self.wakeups += 1


@pytest.fixture
def start() -> Iterator[Callable[[], Listening]]:
    """Return a function that starts a listener and waits until it listens."""
    with contextlib.ExitStack() as stack:

        def start_one() -> Listening:
            listening, before = Listening(), count_notify_listeners()
            listening.thread.start()
            stack.callback(listening.thread.join, PATIENCE)
            stack.callback(listening.stopping.set)
            wait_until(lambda: listening.wakeups == 1, "it looks once when it begins to listen")
            assert count_notify_listeners() == before + 1
            return listening

        yield start_one
    wait_until(lambda: count_notify_listeners() == 0, "the listeners have left")


class TestNudge:
    def test_one_notification_is_sent_until_a_claim_takes_it(self, start: Any, messages: list[str]) -> None:
        listening = start()

        assert [nudge(), nudge(), nudge()] == [True, False, False]
        wait_until(lambda: listening.wakeups == 2, "the drain is woken")
        claim(1, channels=["feishu"], options=service_options(), clock=None, before=CLEAR)

        assert nudge()
        wait_until(lambda: listening.wakeups == 3, "the drain is woken again")
        assert messages == []

    def test_it_is_a_message_if_nobody_listens(self, messages: list[str]) -> None:
        assert [nudge(), nudge()] == [True, False]

        assert messages == ["notifications.deliver_due"]
        assert execute("SELECT pg_sequence_last_value('notification_wakeups')") is None, "no wake-up is pending"

    def test_without_another_way_nobody_is_woken(self, messages: list[str], change: Change) -> None:
        change(NUDGE="notify")

        assert not nudge()

        assert messages == []

    def test_it_works_without_redis(self, start: Any, messages: list[str], change: Change) -> None:
        change(REDIS_URL="")
        listening = start()

        assert nudge()

        wait_until(lambda: listening.wakeups == 2, "the drain is woken")

    def test_it_never_notifies_in_a_transaction(self, start: Any, messages: list[str]) -> None:
        start()

        with transaction.atomic():
            nudge()

        assert messages == ["notifications.deliver_due"]
        assert execute("SELECT pg_sequence_last_value('notification_wakeups')") is None

    def test_a_failing_notification_becomes_a_message(
        self, start: Any, messages: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        start()
        monkeypatch.setattr(notify_wakeups, "_NOTIFY", "SELECT 1 / 0")

        assert nudge()

        assert messages == ["notifications.deliver_due"]
        assert "nudge not sent: DataError" in caplog.text

    def test_all_drains_are_woken_for_a_backlog_even_if_a_wakeup_is_pending(self, start: Any) -> None:
        first, second = start(), start()
        nudge()
        wait_until(lambda: first.wakeups == 2, "the first drain is woken")
        before = second.wakeups

        nudge_all()

        wait_until(lambda: first.wakeups >= 3 and second.wakeups > before, "both are woken")


class TestListener:
    def test_another_listener_steps_in_if_the_first_one_does_not_claim(self, start: Any) -> None:
        first, second = start(), start()

        nudge()

        wait_until(lambda: (first.wakeups, second.wakeups >= 2) == (2, True), "the second one is woken, too")

    def test_a_lost_notification_is_found_within_nudge_ttl(self, start: Any, change: Change) -> None:
        change(NUDGE_TTL=0.2)
        listening = start()

        execute("SELECT nextval('notification_wakeups')")  # as if its sender had died before the commit

        wait_until(lambda: listening.wakeups >= 2, "the drain is woken")

    def test_it_listens_again_after_a_lost_connection_and_looks_once(
        self, start: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        listening = start()

        execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1852797033"
            " AND objid = 1 AND granted"
        )

        wait_until(lambda: listening.wakeups == 2, "it looks once after it has connected again")
        assert nudge()
        wait_until(lambda: listening.wakeups == 3, "a notification wakes the drain")
        assert caplog.text.count("listener disconnected") == 1

    def test_it_does_not_listen_if_notifications_of_others_do_not_arrive(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(notify_wakeups, "_receiver", lambda listening: lambda: [])
        monkeypatch.setattr(notify_wakeups, "PROBE_SECONDS", 0.1)
        listening = Listening()

        assert not listening.listener.listen()

        assert (listening.wakeups, count_notify_listeners()) == (0, 0)

    def test_it_does_not_listen_without_the_sequence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(notify_wakeups, "CLEAR", CLEAR.replace("notification_wakeups", "missing"))

        assert not Listening().listener.listen()


class TestPreparedClaim:
    def claim_one(self, user: User, key: str) -> list[int]:
        result = request_notification(cast("Any", payload_of(user.pk, key)))
        rows = claim(64, channels=["feishu"], options=service_options(), clock=None, before=CLEAR)
        assert [row.record_id for row in rows] == [result.record_id]
        return [row.record_id for row in rows]

    def prepared(self) -> object:
        return execute("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'notifications_%'")

    def test_a_claim_is_prepared_at_its_second_use_and_claims_the_same(self, make_user: Callable[..., User]) -> None:
        user = make_user()
        connection.close()

        self.claim_one(user, "a")
        assert self.prepared() == 0
        self.claim_one(user, "b")
        assert self.prepared() == 1
        self.claim_one(user, "c")

        assert self.prepared() == 1

    def test_a_forgotten_statement_is_executed_without_a_plan(self, make_user: Callable[..., User]) -> None:
        user = make_user()
        for key in "ab":
            self.claim_one(user, key)

        execute("DEALLOCATE ALL")

        self.claim_one(user, "c")
        self.claim_one(user, "d")

    def test_a_drain_allows_the_next_notification(self, make_user: Callable[..., User], start: Any) -> None:
        start()
        user = make_user()
        request_notification(cast("Any", payload_of(user.pk, "a")))
        assert not nudge()

        with using_memory():
            Engine(before_claim=lambda: CLEAR).deliver_due()

        assert nudge()

    @pytest.mark.parametrize("slots", [1, 2])
    def test_a_drain_under_a_backlog_allows_the_next_notification(
        self, make_user: Callable[..., User], change: Change, slots: int
    ) -> None:
        change(SEND_SLOTS=slots)
        user = make_user()
        for key in "abcd":
            request_notification(cast("Any", payload_of(user.pk, key)))
        pending: list[object] = []

        def clear() -> str:
            pending.append(execute("SELECT nextval('notification_wakeups')"))
            return CLEAR

        with using_memory():
            Engine(before_claim=clear).deliver_due()

        assert len(pending) >= 4 / slots
        assert set(pending) == {1}, "each look cleared what the one before had set"
