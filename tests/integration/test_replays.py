"""Replay operations: what they take, how fast, how they stop, and that no two runners do the same twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone

from notifications import tasks
from notifications.clock import database_now
from notifications.models import NotificationRecord, ReplayOperation
from notifications.replay import runner as replay_runner
from notifications.replay.criteria import Criteria, InvalidCriteria, breakdown
from notifications.replay.operations import cancel_operation, create_operation
from notifications.replay.runner import batch_size_and_pause, run_next_batch
from tests.support.factories import make_record
from tests.support.query_plans import all_nodes, fill_table

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every call for workers, in place of one to a broker."""
    given: list[str] = []
    monkeypatch.setattr("notifications.broker.nudge._publish", given.append)
    return given


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two."""
    monkeypatch.setattr(replay_runner, "MAX_BATCH_RECORDS", 2)


def order(reason: str = "endpoint mended", rate: int | None = None, **criteria: Any) -> ReplayOperation:
    return create_operation(Criteria(**criteria), None, reason, rate=rate)


def finish(operation: ReplayOperation) -> ReplayOperation:
    """Run the operation's batches that are due."""
    while run_next_batch(operation):
        pass
    operation.refresh_from_db()
    return operation


def replayed() -> list[int]:
    return list(NotificationRecord.objects.filter(status="pending").order_by("pk").values_list("pk", flat=True))


def make_old(status: str = "dead", **fields: Any) -> NotificationRecord:
    """A record that became so an hour ago."""
    return make_record(status, **{"updated_at": timezone.now() - HOUR} | fields)


class TestCriteria:
    @pytest.mark.parametrize(
        "criteria",
        [
            {"statuses": ("dead",)},
            {"codes": ("provider_5xx",)},
            {"channel": "other"},
            {"user": 7},
            {"dedupe_key": "this"},
            {"trace_id": "this"},
            {"preview_id": "this"},
            {"search": "this"},
            {"search": "7"},
            {"created_from": datetime.fromisoformat("2026-05-01T10:00:00Z")},
            {"changed_until": datetime.fromisoformat("2026-05-01T11:00:00Z")},
        ],
    )
    def test_each_field_narrows(self, criteria: dict[str, Any]) -> None:
        noon = datetime.fromisoformat("2026-05-01T10:30:00Z")
        fields: dict[str, Any] = {"channel": "other", "user_id": 7, "dedupe_key": "this", "trace_id": "this"}
        fields |= {"preview_id": "this", "last_error_code": "provider_5xx", "created_at": noon, "updated_at": noon}
        this = make_record(**fields)
        early = noon - HOUR if "created_from" in criteria else noon
        make_record("skipped", last_error_code="recipient_missing", created_at=early, updated_at=noon + HOUR)

        assert list(Criteria(**criteria).select(database_now())) == [this]

    def test_all_that_died_of_one_code_within_an_hour(self) -> None:
        ten = datetime.fromisoformat("2026-05-01T10:00:00Z")
        ends = [ten - HOUR, ten, ten + HOUR / 2, ten + HOUR]
        records = [make_record(last_error_code="provider_5xx", updated_at=end) for end in ends]
        make_record(last_error_code="network_error", updated_at=ten)

        finish(order(statuses=("dead",), codes=("provider_5xx",), changed_from=ten, changed_until=ten + HOUR))

        assert replayed() == [records[1].pk, records[2].pk]

    def test_what_was_skipped_while_a_channel_was_off(self) -> None:
        off = make_record("skipped", last_error_code="recipient_missing")
        make_record("skipped", last_error_code="cancelled")

        finish(order(statuses=("skipped",), codes=("recipient_missing",)))

        assert replayed() == [off.pk]

    def test_what_waits_is_in_hand_was_sent_or_called_off_is_never_taken_without_force(self) -> None:
        for status in ("pending", "failed", "sending", "sent"):
            make_record(status)
        make_record("skipped", last_error_code="cancelled")

        assert finish(order()).matched == 0

    def test_sent_ones_are_taken_with_force_within_a_window(self) -> None:
        sent = make_old("sent")
        make_old("sent", created_at=timezone.now() - 3 * HOUR)

        finish(order(statuses=("sent",), created_from=timezone.now() - HOUR, force=True))

        assert replayed() == [sent.pk]

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"statuses": ["pending"]}, "statuses"),
            ({"statuses": "dead"}, "statuses"),
            ({"statuses": ["sent"]}, "statuses"),
            ({"codes": [1]}, "codes"),
            ({"codes": ["a\x00"]}, "codes"),
            ({"channel": "x" * 192}, "channel"),
            ({"channel": 5}, "channel"),
            ({"user": "7"}, "user"),
            ({"user": -1}, "user"),
            ({"ids": [True]}, "ids"),
            ({"ids": list(range(1, 1002))}, "ids"),
            ({"created_from": "2026-05-01T10:00:00"}, "created_from"),
            ({"changed_until": "yesterday"}, "changed_until"),
            ({"force": "yes"}, "force"),
            ({"force": True}, "force"),
            ({"colour": "red"}, "colour"),
        ],
    )
    def test_what_cannot_be_used_is_refused_by_name(self, fields: dict[str, Any], named: str) -> None:
        with pytest.raises(InvalidCriteria) as caught:
            Criteria.from_json(fields)

        assert [field for field, _reason in caught.value.errors] == [named]

    def test_json_holds_all_of_it(self) -> None:
        criteria = Criteria(
            statuses=("dead",),
            codes=("a", "b"),
            user=7,
            ids=(1, 2),
            search="x",
            force=True,
            changed_from=timezone.now(),
        )

        assert Criteria.from_json(criteria.as_json()) == criteria


class TestBreakdown:
    def test_counts_by_status_code_and_channel_and_changes_nothing(self) -> None:
        now = timezone.now()
        for minutes in (10, 30, 20):
            make_record(last_error_code="provider_5xx", updated_at=now - timedelta(minutes=minutes))
        make_record("skipped", last_error_code="recipient_missing", channel="other")
        make_record("sent")

        groups = breakdown(Criteria(), database_now())

        assert [(group.status, group.code, group.channel, group.count) for group in groups] == [
            ("dead", "provider_5xx", "feishu", 3),
            ("skipped", "recipient_missing", "other", 1),
        ]
        assert (groups[0].oldest, groups[0].newest) == (now - timedelta(minutes=30), now - timedelta(minutes=10))
        assert replayed() == []


class TestCreating:
    def test_who_why_and_which_are_kept_and_workers_are_called(
        self, make_user: Callable[..., User], calls: list[str], django_capture_on_commit_callbacks: Any
    ) -> None:
        make_old()
        operator = make_user("operator")

        with django_capture_on_commit_callbacks(execute=True):
            operation = create_operation(Criteria(codes=("provider_config",)), operator, " bot was back ", rate=60)

        assert (operation.created_by, operation.reason, operation.rate) == (operator, "bot was back", 60)
        assert (operation.criteria, operation.matched) == ({"codes": ["provider_config"]}, 1)
        assert calls == ["notifications.run_replays"]
        entry = LogEntry.objects.get()
        assert (entry.user, entry.object_id, entry.change_message) == (
            operator,
            str(operation.pk),
            "Ordered: bot was back",
        )

    @pytest.mark.parametrize(
        ("facts", "named"),
        [
            ({"reason": "  "}, "reason"),
            ({"reason": "x" * 501}, "reason"),
            ({"reason": "a\x00"}, "reason"),
            ({"rate": 0}, "rate"),
            ({"rate": 60_001}, "rate"),
        ],
    )
    def test_a_reason_or_rate_that_is_none_is_refused(self, facts: dict[str, Any], named: str) -> None:
        with pytest.raises(InvalidCriteria, match=named):
            order(**facts)

        assert not ReplayOperation.objects.exists()

    def test_it_does_not_depend_on_a_broker(
        self, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
    ) -> None:
        def away(*args: str) -> None:
            raise ConnectionResetError

        monkeypatch.setattr("notifications.broker.nudge._publish", away)
        make_old()

        with django_capture_on_commit_callbacks(execute=True):
            operation = order()

        tasks.run_replays()
        operation.refresh_from_db()
        assert operation.status == "done"


class TestFrozen:
    def test_what_comes_later_or_changes_later_is_left_alone(self) -> None:
        old, changed = make_old(), make_old()
        operation = order()
        make_record(updated_at=database_now())
        NotificationRecord.objects.filter(pk=changed.pk).update(updated_at=database_now())  # replayed, and dead again

        finish(operation)

        assert replayed() == [old.pk]
        assert (operation.matched, operation.done) == (2, 1)

    def test_as_of_the_count_that_was_looked_at(self) -> None:
        record, seen = make_old(), database_now()
        make_record(updated_at=database_now())

        finish(create_operation(Criteria(), None, "x", as_of=seen))

        assert replayed() == [record.pk]

    def test_as_of_is_never_in_the_future(self) -> None:
        operation = create_operation(Criteria(), None, "x", as_of=database_now() + HOUR)

        assert operation.as_of <= database_now()

    def test_what_it_replayed_is_not_taken_again_though_it_dies_again(self, small: None) -> None:
        records = [make_old() for _ in range(5)]
        operation = order()
        run_next_batch()
        NotificationRecord.objects.filter(status="pending").update(status="dead", next_attempt_at=None)
        ReplayOperation.objects.update(cursor_at=None, cursor_id=None)  # not even if it forgot how far it was

        finish(operation)

        assert set(NotificationRecord.objects.values_list("round", flat=True)) == {1}
        assert operation.done == len(records)


class TestRunning:
    def test_goes_through_all_in_batches_and_links_what_it_touched(self, small: None) -> None:
        at = timezone.now() - HOUR
        records = [make_record(updated_at=at) for _ in range(5)]  # all of one moment: told apart by their number
        operation = order()
        counts = []
        while run_next_batch(operation):
            operation.refresh_from_db()
            counts.append((operation.status, operation.done))

        assert counts == [("running", 2), ("running", 4), ("done", 5)]
        assert replayed() == [record.pk for record in records]
        assert NotificationRecord.objects.filter(replay_operation=operation).count() == 5
        assert operation.finished_at is not None

    def test_each_record_has_its_history(self, make_user: Callable[..., User]) -> None:
        record, operator = make_old(), make_user("operator")

        finish(create_operation(Criteria(), operator, "mended"))

        entry = LogEntry.objects.get(object_id=str(record.pk), content_type__model="notificationrecord")
        assert (entry.user, entry.change_message) == (operator, "Replayed: mended")

    def test_goes_on_when_the_one_who_ordered_it_is_gone(self, make_user: Callable[..., User]) -> None:
        operator = make_user("operator")
        make_old()
        operation = create_operation(Criteria(), operator, "x")
        operator.delete()

        assert finish(operation).done == 1

    def test_the_sweep_goes_on_with_what_stands_still(self, small: None) -> None:
        for _ in range(3):
            make_old()
        operation = order()
        run_next_batch()  # and its worker died

        tasks.run_replays()

        operation.refresh_from_db()
        assert (operation.status, operation.done) == ("done", 3)

    def test_operations_take_turns(self, small: None) -> None:
        for code in ("a", "b"):
            for _ in range(4):
                make_old(last_error_code=code)
        first, second = order(codes=("a",)), order(codes=("b",))

        run_next_batch()
        run_next_batch()

        first.refresh_from_db()
        second.refresh_from_db()
        assert (first.done, second.done) == (2, 2)

    def test_a_database_that_refuses_a_batch_is_asked_again_later(
        self, small: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = make_old()
        operation = order()

        def refuse(*args: Any, **kwargs: Any) -> int:
            raise OperationalError("host=secret")

        with monkeypatch.context() as broken:
            broken.setattr(replay_runner, "replay_notifications", refuse)
            assert run_next_batch()

        operation.refresh_from_db()
        assert (operation.status, operation.error, run_next_batch()) == ("queued", "OperationalError", False)
        ReplayOperation.objects.update(next_batch_at=database_now())
        assert finish(operation).error == ""
        assert replayed() == [record.pk]

    def test_a_bug_ends_the_operation_and_not_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make_old()
        broken, sound = order(), order()
        ReplayOperation.objects.filter(pk=broken.pk).update(criteria={"colour": "red"})

        tasks.run_replays()

        broken.refresh_from_db()
        sound.refresh_from_db()
        assert (broken.status, broken.error, sound.status) == ("failed", "InvalidCriteria", "done")


class TestRate:
    @pytest.mark.parametrize("rate", [1, 7, 59, 60, 61, 90, 151, 600, 601, 30_000, 59_999, 60_000])
    def test_no_minute_has_more(self, rate: int) -> None:
        size, pause = batch_size_and_pause(rate)

        batches = int(60 / pause + 1e-6)  # that fit into a minute, with the first at its beginning
        assert rate * 0.9 <= batches * size <= rate or size == 1

    def test_the_next_batch_waits_on_the_clock_of_the_database(self) -> None:
        for _ in range(3):
            make_old()
        operation = order(rate=1)

        assert [run_next_batch(), run_next_batch()] == [True, False]

        operation.refresh_from_db()
        assert operation.done == 1
        assert operation.next_batch_at
        assert operation.started_at
        assert operation.next_batch_at - operation.started_at == timedelta(seconds=60)

    def test_it_is_by_operation_and_not_by_runner(self, small: None) -> None:
        for _ in range(3):
            make_old()
        operation = order(rate=60)

        for _ in range(5):  # five workers, one after the other
            replay_runner.run_due_batches(0)

        operation.refresh_from_db()
        assert operation.done == 1


class TestCancelling:
    def test_stops_after_the_batch_and_what_was_replayed_stays(
        self, small: None, make_user: Callable[..., User]
    ) -> None:
        for _ in range(5):
            make_old()
        operation, operator = order(), make_user("operator")
        run_next_batch()

        assert cancel_operation(operation, operator)

        assert not run_next_batch()
        operation.refresh_from_db()
        assert (operation.status, operation.done, len(replayed())) == ("cancelled", 2, 2)
        assert LogEntry.objects.get().change_message == "Cancelled"

    def test_what_has_ended_cannot_be_cancelled(self) -> None:
        operation = finish(order())

        assert not cancel_operation(operation, None)

        operation.refresh_from_db()
        assert operation.status == "done"


@pytest.mark.django_db(transaction=True)
class TestSideBySide:
    def test_an_operation_in_anothers_hands_is_left_to_it(self) -> None:
        make_old()
        operation = order()
        found: list[bool] = []

        def other() -> None:
            found.append(run_next_batch())
            connections.close_all()

        with transaction.atomic():
            ReplayOperation.objects.select_for_update().get(pk=operation.pk)
            thread = threading.Thread(target=other)
            thread.start()
            thread.join(30)

        assert (found, run_next_batch()) == ([False], True)

    def test_many_runners_replay_each_record_once(self, small: None) -> None:
        for _ in range(60):
            make_old()
        operation = order()

        def runner() -> None:
            replay_runner.run_due_batches(30)
            connections.close_all()

        threads = [threading.Thread(target=runner) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        operation.refresh_from_db()
        assert (operation.status, operation.done) == ("done", 60)
        assert set(NotificationRecord.objects.values_list("status", "round")) == {("pending", 1)}

    def test_a_record_that_changes_while_its_batch_waits_for_it_is_left_alone(self) -> None:
        record = make_old()
        operation = order()

        def runner() -> None:
            replay_runner.run_due_batches(30)
            connections.close_all()

        thread = threading.Thread(target=runner)

        with transaction.atomic():
            NotificationRecord.objects.filter(pk=record.pk).update(updated_at=database_now(), last_error="again")
            thread.start()
            _wait_until_somebody_waits()
        thread.join(60)

        operation.refresh_from_db()
        record.refresh_from_db()
        assert (operation.status, operation.done, record.status) == ("done", 0, "dead")


def _wait_until_somebody_waits() -> None:
    deadline = time.monotonic() + 30
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waits")


class TestPlans:
    @pytest.fixture
    def many(self) -> None:
        fill_table("sent", "sent", 50_000)
        fill_table("dead", "dead", 2_000, days=1)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE notification_records")

    def plan(self, sql: str, parameters: Any) -> list[dict[str, Any]]:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
            return all_nodes(cursor.fetchone()[0][0]["Plan"])

    @pytest.mark.parametrize(
        ("criteria", "index"),
        [
            ({}, "notification_undelivered"),
            ({"codes": ("provider_5xx",)}, "notification_undelivered"),
            ({"user": 42}, "notification_user"),
            ({"dedupe_key": "dead7"}, "notification_dedupe"),
            ({"created_from": timezone.now() + HOUR, "force": True}, "created_at"),
        ],
    )
    def test_counts_and_batches_read_by_an_index(self, many: None, criteria: dict[str, Any], index: str) -> None:
        chosen = Criteria(**criteria)
        records = chosen.select(database_now() + HOUR)
        counted = records.order_by().values("status").query.sql_with_params()
        batch = records.filter(**{f"{chosen.cursor_field}__gte": timezone.now() - 48 * HOUR})
        walked = batch.order_by(chosen.cursor_field, "pk").values("pk")[:500].query.sql_with_params()

        for sql, parameters in (counted, walked):
            found = self.plan(sql, parameters)
            assert not [node for node in found if node["Node Type"] == "Seq Scan"]
            assert any(index in node.get("Index Name", "") for node in found)
