"""A record that becomes due before the next sweep is looked at when it is due."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now

from notifications import tasks
from notifications.broker import delayed_nudge
from notifications.broker.delayed_nudge import DelayedNudge
from notifications.delivery.engine import Engine
from notifications.delivery.process_drain import ProcessDrain
from notifications.models import NotificationRecord
from notifications.providers.memory import MemoryProvider
from notifications.states import Status
from notifications.testing import using_memory
from tests.support.delivery import make_due_record, options_with

PATIENCE = 20.0


def due_in(key: str, seconds: float, **fields: object) -> NotificationRecord:
    return make_due_record(key, next_attempt_at=Now() + timedelta(seconds=seconds), **fields)


def engine() -> Engine:
    return Engine(options=options_with(), providers={"feishu": MemoryProvider()})


@pytest.mark.django_db(transaction=True)
def test_a_drain_waits_for_what_becomes_due_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks._process_drain.delayed_nudge, "within", lambda seconds: None)
    with using_memory() as provider:
        due_in("soon", 0.3)
        due_in("later", 1000)

        tasks.deliver_due.run()

    assert len(provider.requests) == 1
    assert NotificationRecord.objects.get(dedupe_key="later").status == Status.PENDING


@pytest.mark.django_db
def test_only_records_that_wait_count_and_only_those_of_served_channels() -> None:
    due_in("leased", 5, status=Status.SENDING)
    due_in("foreign", 6, channel="pager")
    due_in("far", 1000)
    assert engine().seconds_until_due(60) is None

    due_in("retry", 7, status=Status.FAILED)
    assert 5 < (engine().seconds_until_due(60) or 0) <= 7


@pytest.mark.django_db(transaction=True)
def test_the_task_plans_a_nudge_for_a_record_that_is_due_before_the_next_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[float] = []
    monkeypatch.setattr(tasks._process_drain.delayed_nudge, "within", planned.append)
    tasks.deliver_due.run()
    assert planned == []

    due_in("retry", 30)
    tasks.deliver_due.run()

    [seconds] = planned
    assert 20 < seconds <= 30


class TestDelayedNudge:
    def test_one_nudge_is_queued_at_the_earliest_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nudges: list[str] = []
        nudged = threading.Event()

        def nudge() -> None:
            nudges.append("nudge")
            nudged.set()

        monkeypatch.setattr(delayed_nudge, "nudge", nudge)
        delayed = DelayedNudge()

        delayed.within(1000)
        delayed.within(0.01)
        delayed.within(2000)

        assert nudged.wait(PATIENCE)
        nudged.clear()
        delayed.within(0)
        assert nudged.wait(PATIENCE)
        assert nudges == ["nudge", "nudge"]

    def test_a_cancelled_nudge_is_not_queued(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delayed_nudge, "nudge", lambda: pytest.fail("it was cancelled"))
        delayed = DelayedNudge()
        delayed.within(1000)
        [timer] = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]

        delayed.cancel()
        timer.join(PATIENCE)

        assert not timer.is_alive()


@pytest.mark.django_db(transaction=True)
def test_a_record_that_is_committed_late_is_sent_although_its_turn_has_passed() -> None:
    drain = ProcessDrain(threading.Event())
    with using_memory() as provider:
        due_in("first", 0)
        drain.run()
        drain._queue_start._full_look_at = time.monotonic() + 0.2  # as after a slow look from the beginning

        due_in("late", -30)
        drain.run()

    assert len(provider.requests) == 2


@pytest.mark.django_db(transaction=True)
def test_a_drain_ends_when_nothing_is_left(django_assert_max_num_queries: Any) -> None:
    drain = ProcessDrain(threading.Event())
    with using_memory() as provider:
        drain.run()
        due_in("one", 0)

        with django_assert_max_num_queries(20):
            drain.run()

    assert len(provider.requests) == 1
