"""Replay operations: selection, rate, cancellation, and concurrent runners."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from notifications.replay.operations import OperationExists, cancel_operation, create_operation
from notifications.replay.runner import batch_size_and_pause, run_next_batch
from tests.support.factories import make_record
from tests.support.query_plans import all_nodes, fill_table

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def published_tasks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the broker and return the list of published task names."""
    published: list[str] = []
    monkeypatch.setattr("notifications.broker.nudge._publish", published.append)
    return published


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two."""
    monkeypatch.setattr(replay_runner, "MAX_BATCH_RECORDS", 2)


def create(reason: str = "endpoint mended", rate: int | None = None, **criteria: Any) -> ReplayOperation:
    return create_operation(Criteria(**criteria), None, reason, rate=rate)


def run_due(operation: ReplayOperation) -> ReplayOperation:
    """Run the operation's batches that are due."""
    while run_next_batch(operation):
        pass
    operation.refresh_from_db()
    return operation


def pending_ids() -> list[int]:
    return list(NotificationRecord.objects.filter(status="pending").order_by("pk").values_list("pk", flat=True))


def make_old(status: str = "dead", **fields: Any) -> NotificationRecord:
    """Return a record that was last changed an hour ago."""
    return make_record(status, **{"updated_at": timezone.now() - HOUR} | fields)


class TestCriteria:
    def test_each_field_filters_records(self, subtests: pytest.Subtests) -> None:
        cases: list[dict[str, Any]] = [
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
        ]
        for criteria in cases:
            with subtests.test(criteria=criteria):
                NotificationRecord.objects.all().delete()
                noon = datetime.fromisoformat("2026-05-01T10:30:00Z")
                fields: dict[str, Any] = {"channel": "other", "user_id": 7, "dedupe_key": "this", "trace_id": "this"}
                fields |= {
                    "preview_id": "this",
                    "last_error_code": "provider_5xx",
                    "created_at": noon,
                    "updated_at": noon,
                }
                matching = make_record(**fields)
                early = noon - HOUR if "created_from" in criteria else noon
                make_record("skipped", last_error_code="recipient_missing", created_at=early, updated_at=noon + HOUR)

                assert list(Criteria(**criteria).select(database_now())) == [matching]

    def test_selects_dead_records_by_code_and_time_window(self) -> None:
        ten = datetime.fromisoformat("2026-05-01T10:00:00Z")
        ends = [ten - HOUR, ten, ten + HOUR / 2, ten + HOUR]
        records = [make_record(last_error_code="provider_5xx", updated_at=end) for end in ends]
        make_record(last_error_code="network_error", updated_at=ten)

        run_due(create(statuses=("dead",), codes=("provider_5xx",), changed_from=ten, changed_until=ten + HOUR))

        assert pending_ids() == [records[1].pk, records[2].pk]

    def test_selects_skipped_records_by_code(self) -> None:
        skipped = make_record("skipped", last_error_code="recipient_missing")
        make_record("skipped", last_error_code="cancelled")

        run_due(create(statuses=("skipped",), codes=("recipient_missing",)))

        assert pending_ids() == [skipped.pk]

    def test_unfinished_sent_and_cancelled_records_are_not_selected_without_force(self) -> None:
        for status in ("pending", "failed", "sending", "sent"):
            make_record(status)
        make_record("skipped", last_error_code="cancelled")

        assert run_due(create()).matched == 0

    def test_sent_records_are_selected_with_force_and_time_window(self) -> None:
        sent = make_old("sent")
        make_old("sent", created_at=timezone.now() - 3 * HOUR)

        run_due(create(statuses=("sent",), created_from=timezone.now() - HOUR, force=True))

        assert pending_ids() == [sent.pk]

    def test_invalid_criteria_are_rejected_with_field_name(self, subtests: pytest.Subtests) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
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
        ]
        for fields, field_name in cases:
            with subtests.test(fields=fields, field_name=field_name):
                with pytest.raises(InvalidCriteria) as error_info:
                    Criteria.from_json(fields)

                assert [field for field, _reason in error_info.value.errors] == [field_name]

    def test_json_round_trip_keeps_all_criteria(self) -> None:
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
    def test_breakdown_counts_by_status_code_and_channel_and_changes_nothing(self) -> None:
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
        assert pending_ids() == []


class TestCreating:
    def test_operation_stores_operator_reason_and_criteria_and_nudges_workers(
        self, make_user: Callable[..., User], published_tasks: list[str], django_capture_on_commit_callbacks: Any
    ) -> None:
        make_old()
        operator = make_user("operator")

        with django_capture_on_commit_callbacks(execute=True):
            operation = create_operation(Criteria(codes=("provider_config",)), operator, " bot was back ", rate=60)

        assert (operation.created_by, operation.reason, operation.rate) == (operator, "bot was back", 60)
        assert (operation.criteria, operation.matched) == ({"codes": ["provider_config"]}, 1)
        assert published_tasks == ["notifications.run_replays"]
        entry = LogEntry.objects.get()
        assert (entry.user, entry.object_id, entry.change_message) == (
            operator,
            str(operation.pk),
            "Ordered: bot was back",
        )

    def test_invalid_reason_or_rate_is_rejected(self, subtests: pytest.Subtests) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({"reason": "  "}, "reason"),
            ({"reason": "x" * 501}, "reason"),
            ({"reason": "a\x00"}, "reason"),
            ({"rate": 0}, "rate"),
            ({"rate": 60_001}, "rate"),
        ]
        for arguments, field_name in cases:
            with subtests.test(arguments=arguments, field_name=field_name):
                with pytest.raises(InvalidCriteria, match=field_name):
                    create(**arguments)

                assert not ReplayOperation.objects.exists()

    def test_operation_runs_although_the_broker_fails(
        self, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
    ) -> None:
        def raise_connection_reset(*args: str) -> None:
            raise ConnectionResetError

        monkeypatch.setattr("notifications.broker.nudge._publish", raise_connection_reset)
        make_old()

        with django_capture_on_commit_callbacks(execute=True):
            operation = create()

        tasks.run_replays()
        operation.refresh_from_db()
        assert operation.status == "done"


class TestSameOrder:
    def test_criteria_of_an_unfinished_operation_are_refused_until_it_has_ended(self) -> None:
        make_record()
        criteria = Criteria(statuses=("dead",))
        running = create_operation(criteria, None, "one")

        with pytest.raises(OperationExists) as same:
            create_operation(criteria, None, "two", rate=5)
        assert same.value.operation == running
        create_operation(Criteria(statuses=("skipped",)), None, "another")

        cancel_operation(running, None)
        assert create_operation(criteria, None, "three").pk != running.pk

    @pytest.mark.django_db(transaction=True)
    def test_two_people_at_the_same_moment_start_one_operation(self) -> None:
        barrier = threading.Barrier(2)

        def start() -> str:
            barrier.wait()
            try:
                create_operation(Criteria(statuses=("dead",)), None, "x")
            except OperationExists:
                return "refused"
            finally:
                connection.close()
            return "started"

        with ThreadPoolExecutor(2) as pool:
            outcomes = sorted(future.result() for future in [pool.submit(start) for _ in range(2)])
        assert outcomes == ["refused", "started"]


class TestSelectionTime:
    def test_records_created_or_changed_after_creation_are_not_replayed(self) -> None:
        old, changed = make_old(), make_old()
        operation = create()
        make_record(updated_at=database_now())
        NotificationRecord.objects.filter(pk=changed.pk).update(updated_at=database_now())

        run_due(operation)

        assert pending_ids() == [old.pk]
        assert (operation.matched, operation.done) == (2, 1)

    def test_as_of_excludes_records_changed_after_the_count(self) -> None:
        record, counted_at = make_old(), database_now()
        make_record(updated_at=database_now())

        run_due(create_operation(Criteria(), None, "x", as_of=counted_at))

        assert pending_ids() == [record.pk]

    def test_as_of_is_never_in_the_future(self) -> None:
        operation = create_operation(Criteria(), None, "x", as_of=database_now() + HOUR)

        assert operation.as_of <= database_now()

    def test_replayed_record_that_becomes_dead_again_is_not_replayed_twice(self, small_batches: None) -> None:
        records = [make_old() for _ in range(5)]
        operation = create()
        run_next_batch()
        NotificationRecord.objects.filter(status="pending").update(status="dead", next_attempt_at=None)
        ReplayOperation.objects.update(cursor_at=None, cursor_id=None)  # even if the cursor were lost

        run_due(operation)

        assert set(NotificationRecord.objects.values_list("round", flat=True)) == {1}
        assert operation.done == len(records)


class TestRunning:
    def test_replays_all_records_in_batches_and_links_records_to_the_operation(self, small_batches: None) -> None:
        changed_at = timezone.now() - HOUR
        records = [
            make_record(updated_at=changed_at) for _ in range(5)
        ]  # equal times: the ID is the second key of the order
        operation = create()
        counts = []
        while run_next_batch(operation):
            operation.refresh_from_db()
            counts.append((operation.status, operation.done))

        assert counts == [("running", 2), ("running", 4), ("done", 5)]
        assert pending_ids() == [record.pk for record in records]
        assert NotificationRecord.objects.filter(replay_operation=operation).count() == 5
        assert operation.finished_at is not None

    def test_each_replayed_record_gets_a_log_entry(self, make_user: Callable[..., User]) -> None:
        record, operator = make_old(), make_user("operator")

        run_due(create_operation(Criteria(), operator, "mended"))

        entry = LogEntry.objects.get(object_id=str(record.pk), content_type__model="notificationrecord")
        assert (entry.user, entry.change_message) == (operator, "Replayed: mended")

    def test_operation_continues_after_its_creator_is_deleted(self, make_user: Callable[..., User]) -> None:
        operator = make_user("operator")
        make_old()
        operation = create_operation(Criteria(), operator, "x")
        operator.delete()

        assert run_due(operation).done == 1

    def test_sweep_continues_an_interrupted_operation(self, small_batches: None) -> None:
        for _ in range(3):
            make_old()
        operation = create()
        run_next_batch()  # then the worker is lost

        tasks.run_replays()

        operation.refresh_from_db()
        assert (operation.status, operation.done) == ("done", 3)

    def test_operations_run_batches_in_turn(self, small_batches: None) -> None:
        for code in ("a", "b"):
            for _ in range(4):
                make_old(last_error_code=code)
        first, second = create(codes=("a",)), create(codes=("b",))

        run_next_batch()
        run_next_batch()

        first.refresh_from_db()
        second.refresh_from_db()
        assert (first.done, second.done) == (2, 2)

    def test_batch_is_retried_after_a_database_error(
        self, small_batches: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = make_old()
        operation = create()

        def refuse(*args: Any, **kwargs: Any) -> int:
            raise OperationalError("host=secret")

        with monkeypatch.context() as broken:
            broken.setattr(replay_runner, "replay_notifications", refuse)
            assert run_next_batch()

        operation.refresh_from_db()
        assert (operation.status, operation.error, run_next_batch()) == ("queued", "OperationalError", False)
        ReplayOperation.objects.update(next_batch_at=database_now())
        assert run_due(operation).error == ""
        assert pending_ids() == [record.pk]

    def test_invalid_operation_fails_and_other_operations_continue(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make_old()
        invalid, valid = create(channel="email"), create()
        ReplayOperation.objects.filter(pk=invalid.pk).update(criteria={"colour": "red"})

        tasks.run_replays()

        invalid.refresh_from_db()
        valid.refresh_from_db()
        assert (invalid.status, invalid.error, valid.status) == ("failed", "InvalidCriteria", "done")


class TestRate:
    def test_rate_is_not_exceeded_in_any_minute(self, subtests: pytest.Subtests) -> None:
        cases: list[int] = [1, 7, 59, 60, 61, 90, 151, 600, 601, 30_000, 59_999, 60_000]
        for rate in cases:
            with subtests.test(rate=rate):
                size, pause = batch_size_and_pause(rate)

                batches = int(60 / pause + 1e-6)  # batches in a minute that starts with one
                assert rate * 0.9 <= batches * size <= rate or size == 1

    def test_next_batch_time_uses_the_database_clock(self) -> None:
        for _ in range(3):
            make_old()
        operation = create(rate=1)

        assert [run_next_batch(), run_next_batch()] == [True, False]

        operation.refresh_from_db()
        assert operation.done == 1
        assert operation.next_batch_at
        assert operation.started_at
        assert operation.next_batch_at - operation.started_at == timedelta(seconds=60)

    def test_rate_applies_to_the_operation_not_to_each_runner(self, small_batches: None) -> None:
        for _ in range(3):
            make_old()
        operation = create(rate=60)

        for _ in range(5):  # five workers, one after the other
            replay_runner.run_due_batches(0)

        operation.refresh_from_db()
        assert operation.done == 1


class TestCancelling:
    def test_cancelled_operation_stops_and_keeps_replayed_records(
        self, small_batches: None, make_user: Callable[..., User]
    ) -> None:
        for _ in range(5):
            make_old()
        operation, operator = create(), make_user("operator")
        run_next_batch()

        assert cancel_operation(operation, operator)

        assert not run_next_batch()
        operation.refresh_from_db()
        assert (operation.status, operation.done, len(pending_ids())) == ("cancelled", 2, 2)
        assert LogEntry.objects.get().change_message == "Cancelled"

    def test_finished_operation_cannot_be_cancelled(self) -> None:
        operation = run_due(create())

        assert not cancel_operation(operation, None)

        operation.refresh_from_db()
        assert operation.status == "done"


@pytest.mark.django_db(transaction=True)
class TestConcurrentRunners:
    def test_locked_operation_is_skipped(self) -> None:
        make_old()
        operation = create()
        results: list[bool] = []

        def run_in_thread() -> None:
            results.append(run_next_batch())
            connections.close_all()

        with transaction.atomic():
            ReplayOperation.objects.select_for_update().get(pk=operation.pk)
            thread = threading.Thread(target=run_in_thread)
            thread.start()
            thread.join(30)

        assert (results, run_next_batch()) == ([False], True)

    def test_concurrent_runners_replay_each_record_once(self, small_batches: None) -> None:
        for _ in range(60):
            make_old()
        operation = create()

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

    def test_record_changed_while_the_batch_waits_for_its_lock_is_not_replayed(self) -> None:
        record = make_old()
        operation = create()

        def runner() -> None:
            replay_runner.run_due_batches(30)
            connections.close_all()

        thread = threading.Thread(target=runner)

        with transaction.atomic():
            NotificationRecord.objects.filter(pk=record.pk).update(updated_at=database_now(), last_error="again")
            thread.start()
            _wait_for_lock_contention()
        thread.join(60)

        operation.refresh_from_db()
        record.refresh_from_db()
        assert (operation.status, operation.done, record.status) == ("done", 0, "dead")


def _wait_for_lock_contention() -> None:
    deadline = time.monotonic() + 30
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
    raise AssertionError("no transaction waits for a lock")


class TestPlans:
    @pytest.fixture
    def filled_table(self) -> None:
        fill_table("sent", "sent", 50_000)
        fill_table("dead", "dead", 2_000, days=1)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE notification_records")

    def plan(self, sql: str, parameters: Any) -> list[dict[str, Any]]:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters)
            return all_nodes(cursor.fetchone()[0][0]["Plan"])

    def test_count_and_batch_queries_use_an_index(self, filled_table: None, subtests: pytest.Subtests) -> None:
        cases: list[tuple[dict[str, Any], str]] = [
            ({}, "notification_undelivered"),
            ({"codes": ("provider_5xx",)}, "notification_undelivered"),
            ({"user": 42}, "notification_user"),
            ({"dedupe_key": "dead7"}, "notification_dedupe"),
            ({"created_from": timezone.now() + HOUR, "force": True}, "created_at"),
        ]
        for criteria, index in cases:
            with subtests.test(criteria=criteria, index=index):
                chosen = Criteria(**criteria)
                records = chosen.select(database_now() + HOUR)
                count_query = records.order_by().values("status").query.sql_with_params()
                batch = records.filter(**{f"{chosen.cursor_field}__gte": timezone.now() - 48 * HOUR})
                batch_query = batch.order_by(chosen.cursor_field, "pk").values("pk")[:500].query.sql_with_params()

                for sql, parameters in (count_query, batch_query):
                    nodes = self.plan(sql, parameters)
                    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]
                    assert any(index in node.get("Index Name", "") for node in nodes)
