"""A nudge reaches a worker that listens at Redis at once, and any other one as a message of Celery.

test_notify_wakeups.py has the nudges by PostgreSQL.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from celery import current_app
from celery.concurrency.solo import TaskPool
from django.db import InterfaceError, OperationalError

from dev.waiting import wait_until
from notifications import tasks
from notifications.broker import nudge as nudge_module
from notifications.broker.nudge import NUDGE_KEY, mark_nudge_received, nudge
from notifications.broker.redis_client import gateway
from notifications.broker.redis_wakeups import LISTENERS_KEY, WAKEUPS_KEY
from notifications.broker.wakeups import ResidentDrain

PATIENCE = 20.0
Change = Callable[..., None]


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch, change: Change) -> list[str]:
    """The messages of Celery that were queued. PostgreSQL is not asked."""
    change(NUDGE="redis")
    queued: list[str] = []
    monkeypatch.setattr(nudge_module, "_publish", lambda task, *args, **kwargs: queued.append(task))
    mark_nudge_received()
    gateway().run(lambda client: client.delete(gateway().key(WAKEUPS_KEY), gateway().key(LISTENERS_KEY)))
    return queued


def listen() -> None:
    """Say that a worker listens."""
    gateway().run(lambda client: client.set(gateway().key(LISTENERS_KEY), "1", ex=60))


def wakeups() -> object:
    return gateway().run(lambda client: client.llen(gateway().key(WAKEUPS_KEY)))


class TestNudge:
    def test_it_wakes_a_listener_without_a_message(self, messages: list[str]) -> None:
        listen()

        assert [nudge(), nudge()] == [True, False]
        mark_nudge_received()
        assert nudge()

        assert (wakeups(), messages) == (1, []), "one entry is enough for any number of nudges"

    def test_nothing_is_left_behind_if_nobody_listens(self, messages: list[str]) -> None:
        assert [nudge(), nudge()] == [False, False]

        assert (wakeups(), messages) == (0, [])
        assert gateway().run(lambda client: client.exists(gateway().key(NUDGE_KEY))) == 0

    @pytest.mark.django_db(transaction=True)
    def test_it_is_a_message_if_nobody_listens(self, messages: list[str], change: Change) -> None:
        change(NUDGE="auto")
        assert [nudge(), nudge()] == [True, False]

        assert (wakeups(), messages) == (0, ["notifications.deliver_due"])

    def test_it_can_always_be_a_message(self, messages: list[str], change: Change) -> None:
        change(NUDGE="celery")
        listen()

        assert nudge()

        assert (wakeups(), messages) == (0, ["notifications.deliver_due"])

    def test_it_can_be_switched_off(self, messages: list[str], change: Change) -> None:
        change(NUDGE="none")
        listen()

        assert not nudge()

        assert (wakeups(), messages) == (0, [])
        assert gateway().run(lambda client: client.exists(gateway().key(NUDGE_KEY))) == 0


class Worker:
    """A resident drain whose drains the test controls."""

    def __init__(self) -> None:
        self.drains = 0
        self.received = 0
        self.gate = threading.Event()
        self.gate.set()
        self.failures: list[Exception] = []
        self.wakeup, self.stopping = threading.Event(), threading.Event()
        self.resident = ResidentDrain(self.drain, received=self.count, wakeup=self.wakeup, stopping=self.stopping)

    def drain(self) -> None:
        self.drains += 1
        assert self.gate.wait(PATIENCE)
        if self.failures:
            raise self.failures.pop()

    def count(self) -> None:
        self.received += 1
        mark_nudge_received()

    def stop(self) -> None:
        self.stopping.set()
        self.gate.set()
        self.resident.stop(PATIENCE)
        self.resident._listener.join(PATIENCE)


@pytest.fixture
def worker(messages: list[str]) -> Iterator[Worker]:
    """A worker that has made its first drain and listens."""
    worker = Worker()
    worker.resident.start()
    wait_until(lambda: worker.drains == 1 and listeners(), "the worker drains once at its start and listens")
    yield worker
    worker.stop()


def listeners() -> object:
    return gateway().run(lambda client: client.exists(gateway().key(LISTENERS_KEY)))


@pytest.mark.django_db(transaction=True)
class TestResidentDrain:
    def test_a_nudge_starts_a_drain(self, worker: Worker, messages: list[str]) -> None:
        assert nudge()

        wait_until(lambda: worker.drains == 2, "the nudge starts a drain")
        assert messages == []

    def test_a_nudge_wakes_up_a_running_drain(self, worker: Worker) -> None:
        worker.gate.clear()
        nudge()
        wait_until(lambda: worker.drains == 2, "a drain runs")
        worker.wakeup.clear()

        wait_until(nudge, "the first nudge has been received")

        assert worker.wakeup.wait(PATIENCE)
        assert worker.drains == 2

    @pytest.mark.parametrize("failure", [OperationalError, InterfaceError, RuntimeError])
    def test_a_failed_drain_ends_neither_thread(
        self, worker: Worker, caplog: pytest.LogCaptureFixture, failure: type[Exception]
    ) -> None:
        worker.failures = [failure("canary"), failure("canary")]  # after the first one it connects again
        nudge()
        wait_until(lambda: "drain failed" in caplog.text, "the failure is logged")
        assert "canary" not in caplog.text

        wait_until(nudge, "the first nudge has been received")

        wait_until(lambda: not worker.failures and worker.drains >= 3, "the next nudge starts a drain")

    def test_stopping_waits_for_the_running_drain_and_leaves_no_listener(self, worker: Worker) -> None:
        worker.gate.clear()
        nudge()
        wait_until(lambda: worker.drains == 2, "a drain runs")
        worker.stopping.set()
        stopped = threading.Thread(target=worker.resident.stop, args=(PATIENCE,))
        stopped.start()
        assert stopped.is_alive()

        worker.gate.set()
        stopped.join(PATIENCE)
        worker.resident._listener.join(PATIENCE)

        assert not stopped.is_alive()
        assert not listeners()

    def test_a_nudge_that_a_stopping_worker_receives_is_passed_on(self, worker: Worker) -> None:
        worker.stopping.set()
        gateway().run(lambda client: client.lpush(gateway().key(WAKEUPS_KEY), "1"))

        worker.resident._listener.join(PATIENCE)

        assert wakeups() == 1

    def test_without_redis_nothing_is_listened_to(self, change: Change) -> None:
        change(REDIS_URL="")
        worker = Worker()
        worker.resident.start()
        wait_until(lambda: worker.drains == 1, "the worker drains once at its start")

        worker.stop()

        assert not worker.resident._listener.is_alive()


def test_a_process_starts_one_resident_drain_whatever_signals_its_pool_sends(
    messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(tasks, "_resident_drains", [])
    monkeypatch.setattr(ResidentDrain, "start", lambda self: started.append("drain"))
    pool = TaskPool(app=current_app)

    tasks._remember_pool(sender=SimpleNamespace(pool=pool))

    assert started == ["drain"]
