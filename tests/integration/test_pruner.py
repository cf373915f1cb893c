"""Retention: which rows are deleted, which are kept, and that a purge blocks no other work."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from django.db import OperationalError, connection, transaction

from notifications import tasks
from notifications.api import request_notification
from notifications.delivery.engine import Engine
from notifications.ingest import insert
from notifications.maintenance import pruner
from notifications.maintenance.pruner import PurgeCounts, count_old, purge, retention_cutoff
from notifications.models import DeliveryAttempt, NotificationEvent, NotificationRecord, RejectedRequest
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from notifications.sql import load_sql
from notifications.states import FINAL, SCHEDULED, Status
from tests.support.factories import make_attempt, make_record
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db

BEFORE = datetime(2026, 5, 1, 8, 0, tzinfo=UTC)
OLD = BEFORE - timedelta(microseconds=1)
Change = Callable[..., None]


def make_old(status: str = Status.SENT, *, changed: datetime = OLD, **fields: Any) -> NotificationRecord:
    """Return a record that was created and last changed just before the cutoff."""
    return make_record(status, **({"created_at": OLD, "updated_at": changed} | fields))


def make_rejected(created_at: datetime = OLD) -> RejectedRequest:
    return RejectedRequest.objects.create(source="test", payload="{}", errors=[], created_at=created_at)


def record_ids() -> set[int]:
    return set(NotificationRecord.objects.values_list("pk", flat=True))


@contextlib.contextmanager
def second_connection() -> Iterator[Any]:
    """Yield a cursor of a second connection, in a transaction that is rolled back after the block."""
    name = f"/{connection.settings_dict['NAME']}"
    address = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=name))
    with contextlib.closing(psycopg2.connect(address)) as other, other.cursor() as cursor:
        yield cursor
        other.rollback()  # a closed connection releases its locks only after a delay


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruner, "BATCH_ROWS", 2)


def run_in_thread(work: Callable[[], object]) -> None:
    """Run the function in a thread with its own database connection."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)


class FakeTime:
    """Replaces the time module: advances only when a test sets `now`, and records each sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    clock = FakeTime()
    monkeypatch.setattr(pruner, "time", clock)
    return clock


class TestDeletedRows:
    def test_only_records_in_a_final_status_are_deleted(self, subtests: pytest.Subtests) -> None:
        for status in Status:
            with subtests.test(status=status):
                NotificationRecord.objects.all().delete()
                record = make_old(status)

                counts = purge(BEFORE)

                assert record_ids() == (set() if status in FINAL else {record.pk})
                assert (counts.records, counts.dead) == (status in FINAL, status == Status.DEAD)

    def test_record_changed_at_the_cutoff_is_kept(self) -> None:
        make_old(changed=OLD)
        recent = make_old(changed=BEFORE)

        purge(BEFORE)

        assert record_ids() == {recent.pk}

    def test_attempts_of_deleted_records_are_deleted_and_others_kept(self) -> None:
        deleted, kept = make_old(), make_old(Status.FAILED)
        for record in (deleted, kept):
            make_attempt(record, 1)
            make_attempt(record, 2)

        counts = purge(BEFORE)

        assert counts.attempts == 2
        assert set(DeliveryAttempt.objects.values_list("record_id", flat=True)) == {kept.pk}

    def test_age_is_measured_from_the_last_change(self) -> None:
        recently_sent = make_old(changed=BEFORE, created_at=BEFORE - timedelta(days=400))

        assert purge(BEFORE) == PurgeCounts()
        assert record_ids() == {recently_sent.pk}

    def test_replayed_record_is_kept_for_the_full_retention_after_its_new_end(self, memory: MemoryProvider) -> None:
        record = make_old(Status.DEAD)
        NotificationService().replay(NotificationRecord.objects.all(), None, "endpoint mended")
        now = retention_cutoff(1) + timedelta(days=1)

        purge(now + timedelta(days=30))
        assert record_ids() == {record.pk}

        Engine(providers={"feishu": memory}).deliver_due()
        purge(now - timedelta(days=1))
        assert record_ids() == {record.pk}

        purge(now + timedelta(days=30))
        assert record_ids() == set()

    def test_signals_that_were_given_up_have_the_same_cutoff(self) -> None:
        record = make_old(Status.PENDING)
        _old, recent, waiting = (
            NotificationEvent.objects.create(
                record=record, name="died", payload={}, occurred_at=time, next_attempt_at=next_attempt_at
            )
            for time, next_attempt_at in ((OLD, None), (BEFORE, None), (OLD, OLD))
        )

        assert count_old(BEFORE) == PurgeCounts(signals=1) == purge(BEFORE)
        assert list(NotificationEvent.objects.order_by("pk")) == [recent, waiting]

    def test_rejected_requests_have_the_same_cutoff(self) -> None:
        make_rejected(OLD)
        recent = make_rejected(BEFORE)

        assert purge(BEFORE) == PurgeCounts(rejected=1)
        assert RejectedRequest.objects.get() == recent

    def test_count_equals_the_purge_and_deletes_nothing(self) -> None:
        for status in Status:
            make_attempt(make_old(status))
            make_old(status, changed=BEFORE)
        make_rejected()
        make_rejected(BEFORE)

        expected = count_old(BEFORE)

        assert (len(record_ids()), RejectedRequest.objects.count()) == (12, 2)
        assert expected == PurgeCounts(records=3, dead=1, attempts=3, rejected=1) == purge(BEFORE)

    def test_dedupe_key_of_a_purged_record_can_be_used_again(self) -> None:
        record = make_old(dedupe_key=payload()["dedupe_key"])
        assert request_notification(payload()).reused

        purge(BEFORE)

        again = request_notification(payload())
        assert (again.reused, again.record_id == record.pk) == (False, False)


class TestCutoff:
    def test_cutoff_uses_the_database_clock(self) -> None:
        def now() -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT statement_timestamp()")
                return cursor.fetchone()[0]

        earliest = now()
        cutoff = retention_cutoff(30)

        assert earliest <= cutoff + timedelta(days=30) <= now()

    def test_days_beyond_the_calendar_delete_nothing(self) -> None:
        record = make_old()

        purge(retention_cutoff(2**63))

        assert record_ids() == {record.pk}


@pytest.mark.usefixtures("small_batches")
class TestBatches:
    def test_all_batches_run_and_progress_is_reported(self) -> None:
        for _ in range(5):
            make_old(created_at=OLD - timedelta(seconds=1))
            make_rejected()
        progress: list[tuple[int, int]] = []

        counts = purge(BEFORE, progress=lambda counts: progress.append((counts.records, counts.rejected)))

        assert progress == [(2, 0), (4, 0), (5, 0), (5, 2), (5, 4), (5, 5), (5, 5), (5, 5)]
        assert (counts.has_more, record_ids()) == (False, set())

    def test_each_batch_starts_where_the_previous_batch_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ages = [make_old(created_at=OLD - timedelta(days=days)).created_at for days in (4, 3, 2, 1)]
        start_times: list[datetime | None] = []
        batch = pruner._delete_batch

        def record_start(statement: str, before: datetime, since: datetime | None, counts: PurgeCounts) -> Any:
            start_times.append(since)
            return batch(statement, before, since, counts)

        monkeypatch.setattr(pruner, "_delete_batch", record_start)

        purge(BEFORE)

        # The last three calls are for rejected requests, ended jobs and signals.
        assert start_times == [None, ages[1], ages[3], None, None, None]

    def test_oldest_records_are_deleted_first(self) -> None:
        youngest, *_older = (make_old(created_at=OLD - timedelta(days=days)) for days in (1, 3, 2))

        purge(BEFORE, should_stop=lambda: len(record_ids()) < 3)

        assert record_ids() == {youngest.pk}

    def test_unfinished_old_records_do_not_block_later_records(self) -> None:
        kept = {make_old(status, created_at=OLD - timedelta(days=9)).pk for status in SCHEDULED * 2}
        make_old()

        assert purge(BEFORE).records == 1
        assert record_ids() == kept

    def test_purge_stops_at_the_time_budget_and_the_next_run_continues(self, fake_time: FakeTime) -> None:
        for _ in range(5):
            make_old()

        def advance_time(counts: PurgeCounts) -> None:
            fake_time.now += 4

        first = purge(BEFORE, budget=5, progress=advance_time)

        assert (first.records, first.has_more, len(record_ids())) == (4, True, 1)
        assert purge(BEFORE, budget=5) == PurgeCounts(records=1)

    def test_no_batch_starts_after_should_stop(self) -> None:
        for _ in range(5):
            make_old()

        counts = purge(BEFORE, should_stop=lambda: len(record_ids()) < 5)

        assert (counts.records, counts.has_more) == (2, True)

    def test_pause_equals_the_batch_duration_up_to_a_maximum(
        self, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(5):
            make_old()
        seconds = iter([0.25, 60, 0, 0, 0, 0])
        monkeypatch.setattr(pruner, "_delete_batch", with_duration(pruner._delete_batch, fake_time, seconds))

        purge(BEFORE)

        assert fake_time.pauses == [0.25, pruner.MAX_PAUSE_SECONDS]

    def test_one_log_line_reports_deleted_counts(self, caplog: pytest.LogCaptureFixture) -> None:
        make_attempt(make_old(Status.DEAD))
        make_old()
        make_rejected()

        with caplog.at_level("INFO", logger="notifications.retention"):
            purge(BEFORE)
            purge(BEFORE)

        [line] = [line for line in caplog.records if line.name == "notifications.retention"]
        fields = {name: line.__dict__[name] for name in ("event", "records", "dead", "attempts", "rejected", "more")}
        assert fields == {
            "event": "retention.purged",
            "records": 2,
            "dead": 1,
            "attempts": 1,
            "rejected": 1,
            "more": False,
        }
        assert line.__dict__["before"] == "2026-05-01T08:00:00+00:00"


def with_duration(batch: Callable[..., Any], fake_time: FakeTime, seconds: Iterator[float]) -> Callable[..., Any]:
    """Return the function with each call advancing the fake time by the next number of seconds."""

    def run(*args: Any) -> Any:
        fake_time.now += next(seconds)
        return batch(*args)

    return run


@pytest.mark.django_db(transaction=True)
class TestConcurrency:
    @pytest.mark.usefixtures("small_batches")
    def test_each_batch_is_committed_before_the_next(self) -> None:
        for _ in range(5):
            make_old()
        remaining: list[int] = []

        def count_records(counts: PurgeCounts) -> None:
            with second_connection() as cursor:
                cursor.execute("SELECT count(*) FROM notification_records")
                remaining.append(cursor.fetchone()[0])

        purge(BEFORE, progress=count_records)

        assert remaining[:3] == [3, 1, 0]

    def test_purge_within_a_transaction_raises(self) -> None:
        make_old()

        with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
            purge(BEFORE)

        assert len(record_ids()) == 1

    def test_locked_rows_are_skipped_and_deleted_by_the_next_purge(self) -> None:
        locked, _free = make_old(), make_old()
        kept = make_rejected()
        with second_connection() as cursor:
            cursor.execute("SELECT 1 FROM notification_records WHERE id = %s FOR UPDATE", [locked.pk])
            cursor.execute("SELECT 1 FROM notification_rejected_requests WHERE id = %s FOR UPDATE", [kept.pk])

            assert purge(BEFORE) == PurgeCounts(records=1)
            assert record_ids() == {locked.pk}

        assert purge(BEFORE) == PurgeCounts(records=1, rejected=1)

    def test_record_of_an_uncommitted_replay_is_kept(self) -> None:
        record = make_old(Status.DEAD)
        with second_connection() as cursor:
            cursor.execute("UPDATE notification_records SET status = 'pending', next_attempt_at = now()")
            purge(BEFORE)
            cursor.connection.commit()

        purge(BEFORE)

        record.refresh_from_db()
        assert record.status == Status.PENDING

    def test_record_purged_during_a_replay_is_not_counted_as_replayed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("notifications.record_operations.OPERATION_BATCH_RECORDS", 1)
        make_old(Status.DEAD)
        make_old(Status.DEAD)

        replayed = NotificationService().replay(
            NotificationRecord.objects.all(), None, "x", progress=lambda _replayed, _total: purge(BEFORE)
        )

        assert replayed == 1
        assert NotificationRecord.objects.by_status() == {"pending": 1}

    def test_open_batch_blocks_no_requests_deliveries_or_other_purges(self, memory: MemoryProvider) -> None:
        for _ in range(4):
            make_attempt(make_old())
        waiting = [make_old(Status.PENDING, next_attempt_at=OLD) for _ in range(20)]
        parameters = {"before": BEFORE, "since": None, "batch": 2, "final": list(map(str, FINAL))}
        with second_connection() as cursor:
            cursor.execute(load_sql("notifications.maintenance", "purge_records"), parameters)
            with connection.cursor() as own_cursor:
                own_cursor.execute("SET lock_timeout = '1s'")  # a statement that waits for a lock fails

            request_notification(payload())
            result = Engine(providers={"feishu": memory}).deliver_due()
            other = purge(BEFORE)

            assert result.sent == len(waiting) + 1
            assert (other.records, other.attempts) == (2, 2)
            cursor.connection.commit()

        assert NotificationRecord.objects.by_status() == {"sent": len(waiting) + 1}
        assert DeliveryAttempt.objects.count() == len(waiting) + 1

    @pytest.mark.usefixtures("small_batches")
    def test_concurrent_purges_and_a_drain_all_complete(self, memory: MemoryProvider) -> None:
        for _ in range(200):
            make_attempt(make_old())
        for _ in range(200):
            make_old(Status.PENDING, next_attempt_at=OLD)
        deleted: list[int] = []
        failures: list[Exception] = []
        start = threading.Barrier(3)

        def run() -> None:
            try:
                start.wait(20)
                deleted.append(purge(BEFORE).records)
            except Exception as error:
                failures.append(error)
            finally:
                connection.close()

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        start.wait(20)
        result = Engine(providers={"feishu": memory}).deliver_due()
        for thread in threads:
            thread.join(60)

        assert failures == []
        assert (result.sent, sum(deleted)) == (200, 200)
        assert NotificationRecord.objects.by_status() == {"sent": 200}

    @pytest.mark.usefixtures("small_batches")
    def test_failing_purge_logs_deleted_count_and_next_purge_deletes_the_rest(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(5):
            make_old()

        def cut(counts: PurgeCounts) -> None:
            with connection.cursor() as cursor, second_connection() as other:
                cursor.execute("SELECT pg_backend_pid()")
                other.execute("SELECT pg_terminate_backend(%s, 5000)", cursor.fetchone())

        with caplog.at_level("INFO", logger="notifications.retention"), pytest.raises(OperationalError):
            purge(BEFORE, progress=cut)
        connection.close()

        assert len(record_ids()) == 3
        assert "purged 2 records" in caplog.text
        assert purge(BEFORE).records == 3


@pytest.mark.django_db(transaction=True)
class TestRequestsDuringPurge:
    def test_duplicate_of_a_record_purged_during_insert_becomes_a_new_request(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_old(dedupe_key=payload()["dedupe_key"])
        find = insert._find_existing

        def purge_first(requests: Any) -> Any:
            run_in_thread(lambda: purge(BEFORE))
            return find(requests)

        monkeypatch.setattr(insert, "_find_existing", purge_first)

        accepted = NotificationService().accept([payload(), payload(), payload(dedupe_key="other")])

        assert [result.reused for result in accepted] == [False, True, False]
        assert {result.record_id for result in accepted} == record_ids()

    def test_event_whose_record_is_purged_before_delivery_is_stored_and_delivered_again(
        self, memory: MemoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_old(dedupe_key=payload()["dedupe_key"])
        service = NotificationService(providers={"feishu": memory})
        deliver = service.engine.deliver_one

        def purge_first(*args: Any, **kwargs: Any) -> Any:
            purge(BEFORE)
            return deliver(*args, **kwargs)

        monkeypatch.setattr(service.engine, "deliver_one", purge_first)

        result = service.handle_feishu_requested(payload())

        assert (result.status, result.reused, len(memory.requests)) == ("sent", False, 1)


class TestTask:
    def test_nothing_is_deleted_by_default(self) -> None:
        record, request = make_old(), make_rejected()

        tasks.purge_notifications.run()

        assert record_ids() == {record.pk}
        assert RejectedRequest.objects.get() == request

    def test_zero_or_negative_retention_days_delete_nothing(self, change: Change, subtests: pytest.Subtests) -> None:
        cases: list[int] = [0, -1]
        for days in cases:
            with subtests.test(days=days):
                NotificationRecord.objects.all().delete()
                change(RETENTION_DAYS=days)
                record = make_old()

                tasks.purge_notifications.run()

                assert record_ids() == {record.pk}

    def test_records_older_than_retention_days_are_deleted(self, change: Change) -> None:
        change(RETENTION_DAYS=30)
        deleted, kept = (retention_cutoff(30) + timedelta(minutes=minutes) for minutes in (-5, 5))
        make_old(created_at=deleted, changed=deleted)
        record = make_old(created_at=kept, changed=kept)

        tasks.purge_notifications.run()

        assert record_ids() == {record.pk}

    @pytest.mark.usefixtures("small_batches")
    def test_task_stops_at_its_time_budget(
        self, change: Change, fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        change(RETENTION_DAYS=30)
        for _ in range(5):
            make_old(created_at=retention_cutoff(31), changed=retention_cutoff(31))
        seconds = iter([tasks.PURGE_BUDGET_SECONDS] * 9)
        monkeypatch.setattr(pruner, "_delete_batch", with_duration(pruner._delete_batch, fake_time, seconds))

        counts = []
        for _ in range(3):
            tasks.purge_notifications.run()
            counts.append(len(record_ids()))

        assert counts == [3, 1, 0]

    def test_stopping_worker_deletes_nothing(self, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
        change(RETENTION_DAYS=30)
        record = make_old(created_at=retention_cutoff(31), changed=retention_cutoff(31))
        monkeypatch.setattr(tasks._stopping, "is_set", lambda: True)

        tasks.purge_notifications.run()

        assert record_ids() == {record.pk}
