"""Counters: each result is counted once, in the statement that stores it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import Sum

from notifications.conf import service_options
from notifications.delivery.claim import claim
from notifications.delivery.settle import settle_batch
from notifications.delivery.settlement import Settlement, build_settlement
from notifications.models import Counter
from notifications.providers.base import SendResult
from notifications.providers.memory import MemoryProvider
from notifications.states import Measure, Outcome, Status
from notifications.telemetry.counters import BUCKET_BOUNDS_SECONDS, roll_up
from tests.support.delivery import NOW, OK, TRY_LATER, Clock, make_due_record, make_engine

pytestmark = pytest.mark.django_db


def counted(measure: Measure, *names: str) -> dict[tuple[object, ...], int]:
    rows = Counter.objects.filter(measure=measure).values_list(*names).annotate(Sum("count"))
    return {tuple(row[:-1]): row[-1] for row in rows}


def claimed(clock: Clock, result: SendResult, *, duration: float = 0.03) -> list[Settlement]:
    rows = claim(9, channels=["feishu"], options=service_options(), clock=clock)
    return [build_settlement(row, result, service_options(), duration=duration, age=duration) for row in rows]


def test_attempts_are_counted_by_outcome_code_and_duration(clock: Clock) -> None:
    make_due_record("a"), make_due_record("b")

    settle_batch(claimed(clock, TRY_LATER), clock)

    assert counted(Measure.ATTEMPTS, "outcome", "error_code", "bucket") == {("temporary_fail", "provider_5xx", 3): 2}
    assert BUCKET_BOUNDS_SECONDS[2] < 0.03 < BUCKET_BOUNDS_SECONDS[3]
    assert Counter.objects.get().seconds == pytest.approx(0.06)
    assert Counter.objects.get().hour == NOW


def test_a_delivery_is_counted_once_with_its_attempts_and_its_time(memory: MemoryProvider, clock: Clock) -> None:
    make_due_record("a", created_at=NOW)
    memory.script(TRY_LATER, OK)

    make_engine(memory, clock).deliver_due()
    clock.forward(seconds=300)
    make_engine(memory, clock).deliver_due()

    assert counted(Measure.DELIVERIES, "outcome", "attempts", "bucket") == {
        ("sent", 2, BUCKET_BOUNDS_SECONDS.index(300.0) + 1): 1
    }
    assert counted(Measure.ATTEMPTS, "outcome") == {("temporary_fail",): 1, ("success",): 1}


def test_a_replayed_record_has_no_delivery_time(clock: Clock) -> None:
    make_due_record("a", round=1)

    settle_batch(claimed(clock, OK), clock)

    assert counted(Measure.REPLAYS, "outcome") == {("sent",): 1}
    assert counted(Measure.DELIVERIES, "outcome") == {}


def test_a_result_settled_twice_is_counted_once(clock: Clock) -> None:
    make_due_record("a")
    group = claimed(clock, OK)

    settle_batch(group, clock)
    settle_batch(group, clock)

    assert counted(Measure.ATTEMPTS, "outcome") == {("success",): 1}
    assert counted(Measure.DELIVERIES, "outcome") == {("sent",): 1}


def test_a_stale_failure_is_counted_as_an_attempt_only(clock: Clock) -> None:
    row = make_due_record("a")
    group = claimed(clock, SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="provider_config"))
    type(row).objects.filter(pk=row.pk).update(status=Status.SENT, lease_token=None, next_attempt_at=None)

    settle_batch(group, clock)

    assert counted(Measure.ATTEMPTS, "outcome") == {("permanent_fail",): 1}
    assert counted(Measure.DELIVERIES, "outcome") == {}


def test_a_lost_attempt_is_counted(memory: MemoryProvider, clock: Clock) -> None:
    make_due_record("a", status=Status.SENDING, attempt_count=1, next_attempt_at=NOW)

    make_engine(memory, clock).deliver_due()

    assert counted(Measure.ATTEMPTS, "outcome", "error_code") == {("lost", "lease_expired"): 1, ("success", ""): 1}


def test_each_process_counts_in_its_own_shard(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda shard=shard: shard)
        make_due_record(f"key{shard}")
        settle_batch(claimed(clock, OK), clock)

    assert counted(Measure.ATTEMPTS, "shard") == {(1,): 1, (2,): 1}
    assert counted(Measure.ATTEMPTS, "outcome") == {("success",): 2}


def test_roll_up_keeps_the_totals() -> None:
    now = datetime.now(UTC)
    fields = {"channel": "feishu", "measure": Measure.ATTEMPTS, "outcome": "success", "error_code": "", "attempts": 0}
    for days in (90, 41, 39, 0):
        hour = now - timedelta(days=days)
        Counter.objects.create(hour=hour, shard=days % 3, bucket=1, count=10, seconds=0.5, **fields)

    roll_up()
    roll_up()

    hours = Counter.objects.values_list("hour", "count").order_by("hour")
    assert hours[0] == (datetime(1970, 1, 1, tzinfo=UTC), 20)
    assert [(now - hour).days for hour, _count in hours[1:]] == [39, 0]
    assert counted(Measure.ATTEMPTS, "outcome") == {("success",): 40}
