"""What is deleted after its time, what never is, and that nobody has to wait for it."""

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
from notifications.ingest import insert as intake
from notifications.maintenance import pruner as retention
from notifications.maintenance.pruner import PurgeCounts, count_old, purge, retention_cutoff
from notifications.models import DeliveryAttempt, NotificationRecord, RejectedRequest
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


def old(status: str = Status.SENT, *, changed: datetime = OLD, **fields: Any) -> NotificationRecord:
    """Return a record that was created, and last changed, just too long ago."""
    return make_record(status, **({"created_at": OLD, "updated_at": changed} | fields))


def rejected(created_at: datetime = OLD) -> RejectedRequest:
    return RejectedRequest.objects.create(source="test", payload="{}", errors=[], created_at=created_at)


def left() -> set[int]:
    return set(NotificationRecord.objects.values_list("pk", flat=True))


@contextlib.contextmanager
def somebody_else() -> Iterator[Any]:
    """Give a cursor of another connection, in a transaction that ends with the block."""
    name = f"/{connection.settings_dict['NAME']}"
    address = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=name))
    with contextlib.closing(psycopg2.connect(address)) as other, other.cursor() as cursor:
        yield cursor
        other.rollback()  # closing alone lets go of its locks only some moments later


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)


def in_a_thread(work: Callable[[], object]) -> None:
    """Do the work on a connection of its own, beside the caller's transaction."""

    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)


class Time:
    """Stands in for the time module: moves when told, and notes every rest."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.rests: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.rests.append(seconds)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    stand_in = Time()
    monkeypatch.setattr(retention, "time", stand_in)
    return stand_in


class TestWhatGoes:
    @pytest.mark.parametrize("status", Status)
    def test_final_ones_go_and_those_that_wait_or_are_being_sent_stay(self, status: Status) -> None:
        record = old(status)

        done = purge(BEFORE)

        assert left() == (set() if status in FINAL else {record.pk})
        assert (done.records, done.dead) == (status in FINAL, status == Status.DEAD)

    def test_the_limit_is_sharp(self) -> None:
        old(changed=OLD)
        young = old(changed=BEFORE)

        purge(BEFORE)

        assert left() == {young.pk}

    def test_attempts_go_with_their_record_and_no_others(self) -> None:
        gone, kept = old(), old(Status.FAILED)
        for record in (gone, kept):
            make_attempt(record, 1)
            make_attempt(record, 2)

        done = purge(BEFORE)

        assert done.attempts == 2
        assert set(DeliveryAttempt.objects.values_list("record_id", flat=True)) == {kept.pk}

    def test_age_counts_from_the_last_change(self) -> None:
        scheduled_long_ago_and_sent_now = old(changed=BEFORE, created_at=BEFORE - timedelta(days=400))

        assert purge(BEFORE) == PurgeCounts()
        assert left() == {scheduled_long_ago_and_sent_now.pk}

    def test_a_replayed_one_stays_while_it_waits_and_has_its_full_time_again_afterwards(
        self, memory: MemoryProvider
    ) -> None:
        record = old(Status.DEAD)
        NotificationService().replay(NotificationRecord.objects.all(), None, "endpoint mended")
        now = retention_cutoff(1) + timedelta(days=1)

        purge(now + timedelta(days=30))
        assert left() == {record.pk}

        Engine(providers={"feishu": memory}).deliver_due()
        purge(now - timedelta(days=1))
        assert left() == {record.pk}

        purge(now + timedelta(days=30))
        assert left() == set()

    def test_rejected_requests_go_by_the_same_limit(self) -> None:
        rejected(OLD)
        young = rejected(BEFORE)

        assert purge(BEFORE) == PurgeCounts(rejected=1)
        assert RejectedRequest.objects.get() == young

    def test_counting_says_the_same_and_deletes_nothing(self) -> None:
        for status in Status:
            make_attempt(old(status))
            old(status, changed=BEFORE)
        rejected()
        rejected(BEFORE)

        foretold = count_old(BEFORE)

        assert (len(left()), RejectedRequest.objects.count()) == (12, 2)
        assert foretold == PurgeCounts(records=3, dead=1, attempts=3, rejected=1) == purge(BEFORE)

    def test_a_purged_key_is_free_again(self) -> None:
        record = old(dedupe_key=payload()["dedupe_key"])
        assert request_notification(payload()).reused

        purge(BEFORE)

        again = request_notification(payload())
        assert (again.reused, again.record_id == record.pk) == (False, False)


class TestCutoff:
    def test_is_reckoned_by_the_clock_of_postgresql(self) -> None:
        def now() -> Any:
            with connection.cursor() as cursor:
                cursor.execute("SELECT statement_timestamp()")
                return cursor.fetchone()[0]

        earliest = now()
        found = retention_cutoff(30)

        assert earliest <= found + timedelta(days=30) <= now()

    def test_more_days_than_a_calendar_has_keep_everything(self) -> None:
        record = old()

        purge(retention_cutoff(2**63))

        assert left() == {record.pk}


@pytest.mark.usefixtures("small_batches")
class TestBatches:
    def test_all_are_gone_through_and_progress_is_told(self) -> None:
        for _ in range(5):
            old(created_at=OLD - timedelta(seconds=1))
            rejected()
        seen: list[tuple[int, int]] = []

        done = purge(BEFORE, progress=lambda done: seen.append((done.records, done.rejected)))

        assert seen == [(2, 0), (4, 0), (5, 0), (5, 2), (5, 4), (5, 5), (5, 5)]
        assert (done.has_more, left()) == (False, set())

    def test_each_begins_where_the_last_one_ended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ages = [old(created_at=OLD - timedelta(days=days)).created_at for days in (4, 3, 2, 1)]
        begun: list[datetime | None] = []
        batch = retention._delete_batch

        def note(statement: str, before: datetime, since: datetime | None, done: PurgeCounts) -> Any:
            begun.append(since)
            return batch(statement, before, since, done)

        monkeypatch.setattr(retention, "_delete_batch", note)

        purge(BEFORE)

        assert begun == [None, ages[1], ages[3], None, None]  # the last two are for rejected requests and done jobs

    def test_the_oldest_go_first(self) -> None:
        youngest, *_older = (old(created_at=OLD - timedelta(days=days)) for days in (1, 3, 2))

        purge(BEFORE, should_stop=lambda: len(left()) < 3)

        assert left() == {youngest.pk}

    def test_old_ones_that_must_stay_hide_none_behind_them(self) -> None:
        kept = {old(status, created_at=OLD - timedelta(days=9)).pk for status in SCHEDULED * 2}
        old()

        assert purge(BEFORE).records == 1
        assert left() == kept

    def test_a_spent_budget_ends_it_and_the_next_run_goes_on(self, time: Time) -> None:
        for _ in range(5):
            old()

        def take_long(done: PurgeCounts) -> None:
            time.now += 4

        first = purge(BEFORE, budget=5, progress=take_long)

        assert (first.records, first.has_more, len(left())) == (4, True, 1)
        assert purge(BEFORE, budget=5) == PurgeCounts(records=1)

    def test_asked_to_stop_it_begins_no_further_batch(self) -> None:
        for _ in range(5):
            old()

        done = purge(BEFORE, should_stop=lambda: len(left()) < 5)

        assert (done.records, done.has_more) == (2, True)

    def test_it_rests_as_long_as_each_batch_took_but_not_for_ever(
        self, time: Time, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(5):
            old()
        seconds = iter([0.25, 60, 0, 0, 0])
        monkeypatch.setattr(retention, "_delete_batch", slowly(retention._delete_batch, time, seconds))

        purge(BEFORE)

        assert time.rests == [0.25, retention.MAX_PAUSE_SECONDS]

    def test_one_line_says_what_is_gone(self, caplog: pytest.LogCaptureFixture) -> None:
        make_attempt(old(Status.DEAD))
        old()
        rejected()

        with caplog.at_level("INFO", logger="notifications.retention"):
            purge(BEFORE)
            purge(BEFORE)

        [line] = [line for line in caplog.records if line.name == "notifications.retention"]
        facts = {name: line.__dict__[name] for name in ("event", "records", "dead", "attempts", "rejected", "more")}
        assert facts == {
            "event": "retention.purged",
            "records": 2,
            "dead": 1,
            "attempts": 1,
            "rejected": 1,
            "more": False,
        }
        assert line.__dict__["before"] == "2026-05-01T08:00:00+00:00"


def slowly(batch: Callable[..., Any], time: Time, seconds: Iterator[float]) -> Callable[..., Any]:
    """Return the function with so much time passing in each of its calls."""

    def run(*args: Any) -> Any:
        time.now += next(seconds)
        return batch(*args)

    return run


@pytest.mark.django_db(transaction=True)
class TestBesideOthers:
    @pytest.mark.usefixtures("small_batches")
    def test_each_batch_is_committed_before_the_next(self) -> None:
        for _ in range(5):
            old()
        seen: list[int] = []

        def look(done: PurgeCounts) -> None:
            with somebody_else() as cursor:
                cursor.execute("SELECT count(*) FROM notification_records")
                seen.append(cursor.fetchone()[0])

        purge(BEFORE, progress=look)

        assert seen[:3] == [3, 1, 0]

    def test_it_refuses_a_callers_transaction(self) -> None:
        old()

        with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
            purge(BEFORE)

        assert len(left()) == 1

    def test_what_somebody_has_locked_is_left_and_goes_next_time(self) -> None:
        locked, _free = old(), old()
        kept = rejected()
        with somebody_else() as cursor:
            cursor.execute("SELECT 1 FROM notification_records WHERE id = %s FOR UPDATE", [locked.pk])
            cursor.execute("SELECT 1 FROM notification_rejected_requests WHERE id = %s FOR UPDATE", [kept.pk])

            assert purge(BEFORE) == PurgeCounts(records=1)
            assert left() == {locked.pk}

        assert purge(BEFORE) == PurgeCounts(records=1, rejected=1)

    def test_a_replay_that_has_not_committed_yet_saves_its_record(self) -> None:
        record = old(Status.DEAD)
        with somebody_else() as cursor:
            cursor.execute("UPDATE notification_records SET status = 'pending', next_attempt_at = now()")
            purge(BEFORE)
            cursor.connection.commit()

        purge(BEFORE)

        record.refresh_from_db()
        assert record.status == Status.PENDING

    def test_a_record_purged_in_the_midst_of_a_replay_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("notifications.record_operations.OPERATION_BATCH_RECORDS", 1)
        old(Status.DEAD)
        old(Status.DEAD)

        done = NotificationService().replay(
            NotificationRecord.objects.all(), None, "x", progress=lambda done, count: purge(BEFORE)
        )

        assert done == 1
        assert NotificationRecord.objects.by_status() == {"pending": 1}

    def test_while_a_batch_is_under_way_requests_deliveries_and_other_purges_go_on(
        self, memory: MemoryProvider
    ) -> None:
        for _ in range(4):
            make_attempt(old())
        waiting = [old(Status.PENDING, next_attempt_at=OLD) for _ in range(20)]
        parameters = {"before": BEFORE, "since": None, "batch": 2, "final": list(map(str, FINAL))}
        with somebody_else() as cursor:
            cursor.execute(load_sql("notifications.maintenance", "purge_records"), parameters)
            with connection.cursor() as ours:
                ours.execute("SET lock_timeout = '1s'")  # whoever had to wait would fail

            request_notification(payload())
            result = Engine(providers={"feishu": memory}).deliver_due()
            other = purge(BEFORE)

            assert result.sent == len(waiting) + 1
            assert (other.records, other.attempts) == (2, 2)
            cursor.connection.commit()

        assert NotificationRecord.objects.by_status() == {"sent": len(waiting) + 1}
        assert DeliveryAttempt.objects.count() == len(waiting) + 1

    @pytest.mark.usefixtures("small_batches")
    def test_several_purges_and_a_drain_at_once_each_do_their_work(self, memory: MemoryProvider) -> None:
        for _ in range(200):
            make_attempt(old())
        for _ in range(200):
            old(Status.PENDING, next_attempt_at=OLD)
        gone: list[int] = []
        failures: list[Exception] = []
        start = threading.Barrier(3)

        def run() -> None:
            try:
                start.wait(20)
                gone.append(purge(BEFORE).records)
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
        assert (result.sent, sum(gone)) == (200, 200)
        assert NotificationRecord.objects.by_status() == {"sent": 200}

    @pytest.mark.usefixtures("small_batches")
    def test_what_a_failing_purge_had_deleted_is_said_and_the_next_does_the_rest(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(5):
            old()

        def cut(done: PurgeCounts) -> None:
            with connection.cursor() as cursor, somebody_else() as other:
                cursor.execute("SELECT pg_backend_pid()")
                other.execute("SELECT pg_terminate_backend(%s, 5000)", cursor.fetchone())

        with caplog.at_level("INFO", logger="notifications.retention"), pytest.raises(OperationalError):
            purge(BEFORE, progress=cut)
        connection.close()

        assert len(left()) == 3
        assert "purged 2 records" in caplog.text
        assert purge(BEFORE).records == 3


@pytest.mark.django_db(transaction=True)
class TestRequestsInTheMoment:
    def test_a_duplicate_whose_record_is_purged_meanwhile_is_a_new_request(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old(dedupe_key=payload()["dedupe_key"])
        find = intake._find_existing

        def purge_first(requests: Any) -> Any:
            in_a_thread(lambda: purge(BEFORE))
            return find(requests)

        monkeypatch.setattr(intake, "_find_existing", purge_first)

        accepted = NotificationService().accept([payload(), payload(), payload(dedupe_key="other")])

        assert [one.reused for one in accepted] == [False, True, False]
        assert {one.record_id for one in accepted} == left()

    def test_an_event_whose_record_is_purged_meanwhile_is_delivered_anew(
        self, memory: MemoryProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old(dedupe_key=payload()["dedupe_key"])
        service = NotificationService(providers={"feishu": memory})
        deliver = service.engine.deliver_one

        def purge_first(*args: Any, **kwargs: Any) -> Any:
            purge(BEFORE)
            return deliver(*args, **kwargs)

        monkeypatch.setattr(service.engine, "deliver_one", purge_first)

        result = service.handle_feishu_requested(payload())

        assert (result.status, result.reused, len(memory.requests)) == ("sent", False, 1)


class TestTask:
    def test_by_default_everything_is_kept(self) -> None:
        record, request = old(), rejected()

        tasks.purge_notifications.run()

        assert left() == {record.pk}
        assert RejectedRequest.objects.get() == request

    @pytest.mark.parametrize("days", [0, -1])
    def test_no_days_are_for_ever(self, change: Change, days: int) -> None:
        change(RETENTION_DAYS=days)
        record = old()

        tasks.purge_notifications.run()

        assert left() == {record.pk}

    def test_what_is_older_than_the_days_set_goes(self, change: Change) -> None:
        change(RETENTION_DAYS=30)
        gone, kept = (retention_cutoff(30) + timedelta(minutes=minutes) for minutes in (-5, 5))
        old(created_at=gone, changed=gone)
        record = old(created_at=kept, changed=kept)

        tasks.purge_notifications.run()

        assert left() == {record.pk}

    @pytest.mark.usefixtures("small_batches")
    def test_its_time_is_bounded(self, change: Change, time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
        change(RETENTION_DAYS=30)
        for _ in range(5):
            old(created_at=retention_cutoff(31), changed=retention_cutoff(31))
        seconds = iter([tasks.PURGE_BUDGET_SECONDS] * 9)
        monkeypatch.setattr(retention, "_delete_batch", slowly(retention._delete_batch, time, seconds))

        counts = []
        for _ in range(3):
            tasks.purge_notifications.run()
            counts.append(len(left()))

        assert counts == [3, 1, 0]

    def test_a_worker_that_stops_begins_none(self, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
        change(RETENTION_DAYS=30)
        record = old(created_at=retention_cutoff(31), changed=retention_cutoff(31))
        monkeypatch.setattr(tasks._stopping, "is_set", lambda: True)

        tasks.purge_notifications.run()

        assert left() == {record.pk}
