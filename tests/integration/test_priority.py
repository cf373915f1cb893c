"""The priority of a request: whose turn comes first while more is due than can be sent, and nothing else."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.test import Client

from notifications.conf import service_options
from notifications.delivery import queue_start
from notifications.delivery.claim import claim
from notifications.delivery.fairness import look_at_due
from notifications.models import NotificationRecord
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from tests.support.delivery import NOW, Clock, make_due_record, make_engine
from tests.support.factories import LIST, make_record
from tests.support.payloads import payload

MINUTE = timedelta(minutes=1)


def claimed_keys(limit: int, clock: Clock) -> list[str]:
    return [row.dedupe_key for row in claim(limit, channels=["feishu"], options=service_options(), clock=clock)]


@pytest.mark.django_db
class TestRequest:
    def test_priority_is_stored_and_is_1_by_default(self, memory: MemoryProvider) -> None:
        service = NotificationService(providers={"feishu": memory})

        service.accept([payload(dedupe_key=f"k{number}", priority=number) for number in range(4)])
        service.accept([payload(dedupe_key="default"), payload(dedupe_key="none", priority=None)])
        event = service.handle_feishu_requested(payload(dedupe_key="event", priority=3))

        stored = dict(NotificationRecord.objects.values_list("dedupe_key", "priority"))
        assert stored == {"k0": 0, "k1": 1, "k2": 2, "k3": 3, "default": 1, "none": 1, "event": 3}
        assert event.status == "sent"

    def test_a_duplicate_keeps_the_priority_of_the_first_request(self, memory: MemoryProvider) -> None:
        service = NotificationService(providers={"feishu": memory})

        service.accept([payload(priority=0)])
        service.accept([payload(priority=3)])

        assert NotificationRecord.objects.get().priority == 0

    def test_a_worker_that_knows_no_priority_inserts_records_of_priority_1(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT column_default FROM information_schema.columns WHERE column_name = 'priority'")
            assert cursor.fetchone()[0].strip("'").startswith("1")

    @pytest.mark.parametrize("priority", [-1, 4])
    def test_the_database_refuses_a_priority_that_no_claim_reads(self, priority: int) -> None:
        with pytest.raises(IntegrityError, match="notification_priority_known"), transaction.atomic():
            make_due_record(priority=priority)

    def test_a_replay_keeps_the_priority(self, memory: MemoryProvider) -> None:
        record = make_record("dead", priority=3)

        NotificationService(providers={"feishu": memory}).replay(NotificationRecord.objects.all(), None, "test")

        record.refresh_from_db()
        assert (record.status, record.priority) == ("pending", 3)


@pytest.mark.django_db
class TestTurns:
    def test_of_records_that_are_due_for_as_long_the_higher_priority_comes_first(self, clock: Clock) -> None:
        for number in (1, 0, 3, 2):
            make_due_record(f"k{number}", priority=number)

        assert claimed_keys(3, clock) == ["k3", "k2", "k1"]
        assert claimed_keys(3, clock) == ["k0"]

    def test_each_step_of_priority_is_worth_ten_minutes(self, clock: Clock) -> None:
        for priority, minutes in ((0, 9), (0, 10), (1, 0), (1, 20), (2, 5), (3, 1), (3, 25)):
            make_due_record(f"{priority} for {minutes}", priority=priority, next_attempt_at=NOW - minutes * MINUTE)

        in_turn = ["3 for 25", "3 for 1", "1 for 20", "2 for 5", "0 for 10", "1 for 0", "0 for 9"]
        assert claimed_keys(7, clock) == in_turn

    def test_a_low_record_waits_at_most_ten_minutes_longer_whatever_else_becomes_due(self, clock: Clock) -> None:
        make_due_record("low", priority=0)
        claimed: list[list[str]] = []
        for minute in range(11):  # more becomes due than is sent: the queue grows
            for number in range(10):
                make_due_record(f"{minute}:{number}", next_attempt_at=clock())
            claimed.append(claimed_keys(5, clock))
            clock.forward(minutes=1)

        assert claimed[10][0] == "low", "at normal priority it would have been the first at once"

    def test_in_an_idle_system_a_low_record_is_sent_at_once(self, memory: MemoryProvider, clock: Clock) -> None:
        make_due_record(priority=0)

        assert make_engine(memory, clock).deliver_due().sent == 1

    def test_an_urgent_record_does_not_become_due_earlier(self, memory: MemoryProvider, clock: Clock) -> None:
        make_due_record(priority=3, next_attempt_at=NOW + timedelta(seconds=1))

        assert make_engine(memory, clock).deliver_due().scanned == 0

    def test_a_look_reads_both_ends_of_each_priority(self, clock: Clock) -> None:
        for priority in range(4):
            for number in range(20):
                make_due_record(f"{priority}:{number}", priority=priority, next_attempt_at=NOW - number * MINUTE)

        found = look_at_due(["feishu"], 1, clock)

        assert {(item.priority, item.newest) for item in found} == {(p, end) for p in range(4) for end in (True, False)}
        assert len(found) == 4 * (4 + 1)

    def test_a_look_and_a_claim_pass_over_old_records_of_one_priority_only(self, clock: Clock) -> None:
        for priority in (1, 3):
            for minutes in (15, 30, 45):
                make_due_record(f"{priority}:{minutes}", priority=priority, next_attempt_at=NOW - minutes * MINUTE)
        since = {1: (NOW - 20 * MINUTE).timestamp()}

        found = look_at_due(["feishu"], 1, clock, since)
        claimed = claim(9, channels=["feishu"], options=service_options(), clock=clock, since=since)

        assert sorted(item.priority for item in found if not item.newest) == [1, 3, 3, 3]
        assert [row.dedupe_key for row in claimed] == ["3:45", "3:30", "3:15", "1:15"]

    def test_no_claim_passes_over_an_urgent_record_that_is_due_later_than_what_was_claimed(
        self, memory: MemoryProvider, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queue_start, "FULL_LOOK_PART", 1e-12)  # a look from the beginning is very slow
        engine = make_engine(memory, clock)
        make_due_record("normal", next_attempt_at=NOW - MINUTE)
        assert engine.deliver_due().sent == 1

        for priority in range(4):
            make_due_record(f"new{priority}", priority=priority)

        assert engine.deliver_due().sent == 4

    def test_urgent_records_overtake_a_backlog(self, memory: MemoryProvider, clock: Clock) -> None:
        for number in range(200):
            make_due_record(f"k{number}", user_id=number, next_attempt_at=NOW - 15 * MINUTE)
        for number in range(8):
            make_due_record(f"urgent{number}", user_id=1000 + number, priority=3)

        make_engine(memory, clock, send_slots=8).deliver_due()

        order = [request.user_id for request in memory.requests]
        assert len(order) == 208
        assert max(order.index(1000 + number) for number in range(8)) < 30


@pytest.mark.django_db
class TestShown:
    def test_the_log_line_of_an_attempt_has_it(
        self, memory: MemoryProvider, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        make_due_record(priority=2)

        with caplog.at_level(logging.INFO, "notifications.attempts"):
            make_engine(memory, clock).deliver_due()

        [line] = [record for record in caplog.records if getattr(record, "event", "") == "delivery.attempted"]
        assert line.priority == 2  # type: ignore[attr-defined]

    def test_the_page_of_a_record_shows_it_and_the_list_filters_by_it(self, admin_client: Client) -> None:
        urgent, normal = make_record("sent", priority=3), make_record("sent")

        page = admin_client.get(f"{LIST}{urgent.pk}/change/").text
        lists = {value: admin_client.get(LIST, {"priority": value}).context["cl"].result_list for value in "0123x"}

        assert "Urgent" in page or "urgent" in page
        assert {value: [record.pk for record in records] for value, records in lists.items()} == {
            "0": [], "1": [normal.pk], "2": [], "3": [urgent.pk], "x": [normal.pk, urgent.pk],
        }  # fmt: skip

    def test_the_api_lists_it(self, client: Client) -> None:
        user = get_user_model().objects.create_user("alice")
        make_record("sent", user_id=user.pk, priority=0)
        client.force_login(user)

        [item] = client.get("/api/notifications").json()["items"]

        assert item["priority"] == 0
