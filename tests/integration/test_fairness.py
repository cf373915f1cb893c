"""A drain shares its slots: neither a slow endpoint nor a long queue of one recipient delays the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import psycopg2
import pytest
from django.db import connection, transaction

from dev.waiting import wait_until
from notifications.delivery.engine import Engine
from notifications.delivery.fairness import look_at_due
from notifications.models import NotificationRecord
from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.providers.memory import MemoryProvider
from notifications.sql import FORBID_SORT, load_sql
from notifications.states import Priority, Status
from tests.support.delivery import NOW, Clock, make_due_record, make_engine, options_with
from tests.support.query_plans import all_nodes, executed_plan, fill_table, pages_read

PATIENCE = 30.0
SLOW = 7
ALL = {"channels": ["feishu"], "priorities": Priority.values}


class SlowForOne(MemoryProvider):
    """The sends to one user wait until its gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.slow_started: list[int] = []

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        if request.user_id == SLOW:
            self.slow_started.append(request.notification_id)
            assert self.gate.wait(PATIENCE)
        return super().send(request, endpoint)


@pytest.fixture
def slow_for_one() -> Iterator[SlowForOne]:
    """A provider whose gate is opened in any case."""
    provider = SlowForOne()
    yield provider
    provider.gate.set()


@pytest.mark.django_db(transaction=True)
def test_a_slow_recipient_leaves_slots_to_others_that_come_later(slow_for_one: SlowForOne) -> None:
    for number in range(100):
        make_due_record(f"slow{number}", user_id=SLOW)
    engine = Engine(options=options_with(send_slots=16), providers={"feishu": slow_for_one})

    def drain() -> None:
        engine.deliver_due()
        connection.close()

    drains = threading.Thread(target=drain)
    drains.start()
    try:
        for number in range(20):
            make_due_record(f"other{number}", user_id=100 + number)
            engine.wakeup.set()
        others = NotificationRecord.objects.filter(dedupe_key__startswith="other")
        wait_until(lambda: not others.exclude(status=Status.SENT).exists(), "the others are sent beside the slow ones")

        assert len(slow_for_one.slow_started) <= 14, "an eighth of the slots is kept free"
    finally:
        slow_for_one.gate.set()
        drains.join(PATIENCE)
    assert NotificationRecord.objects.by_status() == {"sent": 120}


@pytest.mark.django_db
def test_a_new_message_is_sent_before_a_queue_of_others(memory: MemoryProvider, clock: Clock) -> None:
    for number in range(200):
        make_due_record(f"queue{number}", user_id=number % 3, next_attempt_at=NOW - timedelta(seconds=300 - number))
    make_due_record("new", user_id=99)

    make_engine(memory, clock, send_slots=8).deliver_due()

    order = [request.user_id for request in memory.requests]
    assert order.index(99) < 30
    assert len(order) == 201


@pytest.mark.django_db
def test_nothing_is_left_whatever_the_slots(memory: MemoryProvider, clock: Clock) -> None:
    for slots in (1, 2, 3, 5):
        for number in range(40):
            make_due_record(f"{slots}:{number}", user_id=number % 2)

        assert make_engine(memory, clock, send_slots=slots).deliver_due().sent == 40, slots


@pytest.mark.django_db
def test_a_look_reads_both_ends_of_the_queue(clock: Clock) -> None:
    pks = [make_due_record(f"k{n}", next_attempt_at=NOW - timedelta(seconds=100 - n)).pk for n in range(20)]
    make_due_record("foreign", channel="pager")
    make_due_record("future", next_attempt_at=NOW + timedelta(seconds=1))

    candidates = look_at_due(["feishu"], 2, clock)

    assert [item.record_id for item in candidates if not item.newest] == pks[:8]
    assert sorted(item.record_id for item in candidates if item.newest) == pks[-2:]


@pytest.mark.django_db
def test_the_cost_of_a_look_does_not_grow_with_the_queue() -> None:
    fill_table("many", "pending", 20_000)
    fill_table("foreign", "pending", 5_000, channel="pager")
    with connection.cursor() as cursor:
        cursor.execute("REINDEX TABLE notification_records")  # other tests leave entries of rows that are gone
    parameters = {"now": None, **ALL, "oldest": 100, "newest": 25, "since": [None] * 4}

    plan = executed_plan(load_sql("notifications.delivery", "look_at_due"), parameters, before=FORBID_SORT)

    assert {node["Index Name"] for node in all_nodes(plan) if "Index Name" in node} == {"notification_due_by_priority"}
    assert plan["Actual Rows"] == 125
    assert pages_read(plan) <= 2 * 125


@pytest.mark.django_db(transaction=True)
def test_an_old_snapshot_makes_no_look_read_what_was_claimed() -> None:
    with connection.cursor() as reindex:
        reindex.execute("REINDEX TABLE notification_records")  # other tests leave entries of rows that are gone
    fill_table("queue", "pending", 30_000)
    with closing(psycopg2.connect(os.environ["DATABASE_URL"], dbname=connection.settings_dict["NAME"])) as dump:
        dump.set_session(isolation_level="REPEATABLE READ")
        with dump.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM notification_records")  # as pg_dump, for hours
        boundary = NotificationRecord.objects.order_by("next_attempt_at")[28_000].next_attempt_at
        assert boundary is not None
        NotificationRecord.objects.filter(next_attempt_at__lt=boundary).update(status="sent", next_attempt_at=None)

        def pages(since: float | None) -> int:
            parameters = {"now": None, **ALL, "oldest": 100, "newest": 25, "since": [since] * 4}
            with transaction.atomic():
                return pages_read(
                    executed_plan(load_sql("notifications.delivery", "look_at_due"), parameters, before=FORBID_SORT)
                )

        assert pages(boundary.timestamp()) <= 3 * 125
        assert pages(None) > 2 * pages(boundary.timestamp()), "the snapshot keeps entries of all that was claimed"
