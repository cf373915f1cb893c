"""Heartbeats of beat, sweep and workers, as the database has them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from celery import current_app
from celery.concurrency.solo import TaskPool
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from notifications import tasks
from notifications.beat import (
    BEAT_HEADER,
    PERIOD_HEADER,
    RUN_DUE_JOBS,
    RUN_REPLAYS,
    SEND_ON_A_NEW_CONNECTION,
    beat_schedule,
)
from notifications.broker import beat_substitute
from notifications.broker.beat_substitute import BeatSubstitute
from notifications.clock import database_now
from notifications.models import Heartbeat
from notifications.states import HeartbeatKind
from notifications.telemetry import heartbeats
from notifications.telemetry.heartbeats import delete_worker_heartbeat, last_heartbeats, write_heartbeat
from notifications.telemetry.process import worker_name

pytestmark = pytest.mark.django_db(transaction=True)


def deliver_due(**headers: float) -> None:
    """Run the task as a worker does that got a message with these headers."""
    tasks.deliver_due.push_request(headers=headers)
    try:
        tasks.deliver_due()
    finally:
        tasks.deliver_due.pop_request()


def test_a_worker_with_the_pool_solo_writes_heartbeats(
    monkeypatch: pytest.MonkeyPatch, change: Callable[..., None]
) -> None:
    change(NUDGE="celery")  # otherwise the pool starts a resident drain
    monkeypatch.setattr(tasks, "_worker_pools", [TaskPool(app=current_app)])
    monkeypatch.setattr(heartbeats, "reserve_write", lambda kind: True)

    tasks._write_heartbeat_from_pool()

    assert Heartbeat.objects.filter(kind=HeartbeatKind.WORKER).count() == 1


def test_an_empty_table_has_no_heartbeats() -> None:
    last = last_heartbeats()

    assert isinstance(last.now, datetime)
    assert (last.beat, last.sweep, last.workers) == (None, None, 0)


def test_a_sweep_of_beat_is_a_heartbeat_of_beat_and_sweep() -> None:
    deliver_due(by_beat=True)

    last = last_heartbeats()
    assert last.beat
    assert last.sweep
    assert last.beat <= last.sweep <= last.now


def test_a_nudge_is_no_heartbeat() -> None:
    deliver_due()

    assert (last_heartbeats().beat, last_heartbeats().sweep) == (None, None)


def test_beat_marks_its_sweeps_by_a_header() -> None:
    schedule = current_app.conf.beat_schedule["notifications-sweep"]

    assert schedule["options"]["headers"] == {BEAT_HEADER: True, PERIOD_HEADER: 60}


def test_no_message_of_beat_depends_on_what_a_scheduler_drops_or_on_two_clocks() -> None:
    # The DatabaseScheduler of django-celery-beat keeps queue, exchange, routing_key, priority, headers, expire_seconds.
    # Without the options for a new connection only a message that RabbitMQ's restart interrupts is late.
    kept = {"headers", *SEND_ON_A_NEW_CONNECTION}

    for name, entry in beat_schedule().items():
        assert entry["options"].keys() == kept, name
        assert entry["options"]["headers"][PERIOD_HEADER] == entry["schedule"], name


class TestMessagesThatPiledUp:
    def test_only_one_of_them_is_handled(self) -> None:
        assert [heartbeats.take_turn("task", 60) for _ in range(3)] == [True, False, False]

    @pytest.mark.parametrize(
        ("age", "taken"), [(29, False), (31, True), (60, True), (3600, True), (-3600, True)], ids=str
    )
    def test_postgresqls_clock_decides(self, age: float, *, taken: bool) -> None:
        heartbeats.take_turn("task", 60)
        Heartbeat.objects.update(seen_at=database_now() - timedelta(seconds=age))

        assert heartbeats.take_turn("task", 60) is taken

    def test_a_sweep_that_is_dropped_shows_that_beat_runs(self) -> None:
        heartbeats.take_turn(tasks.deliver_due.name, 60)

        deliver_due(by_beat=True, period=60)

        assert (last_heartbeats().beat is None, last_heartbeats().sweep is None) == (False, True)

    def test_a_nudge_is_never_dropped(self) -> None:
        deliver_due(period=60)
        with CaptureQueriesContext(connection) as queries:
            deliver_due()

        assert any("notification_records" in query["sql"] for query in queries)

    def test_without_an_answer_of_postgresql_the_task_runs(self, caplog: pytest.LogCaptureFixture) -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE notification_heartbeats RENAME TO elsewhere")
        try:
            assert heartbeats.take_turn("task", 60)
            BeatSubstitute().check()
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE elsewhere RENAME TO notification_heartbeats")

        assert "heartbeat not written: ProgrammingError" in caplog.text


class TestBeatIsSilent:
    @pytest.fixture
    def published(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        names: list[str] = []
        monkeypatch.setattr(
            beat_substitute, "publish_periodic", lambda task, headers: names.append(f"{task} {sorted(headers)}")
        )
        return names

    @pytest.fixture
    def at(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Return a function that sets the monotonic clock."""

        def set_clock(seconds: float) -> None:
            monkeypatch.setattr("notifications.broker.beat_substitute.time.monotonic", lambda: 1000 + seconds)

        set_clock(0)
        return set_clock

    @pytest.mark.parametrize("wrong_by", [timedelta(), timedelta(hours=1), timedelta(hours=-1)], ids=str)
    @pytest.mark.parametrize("beat_ran", [True, False])
    def test_a_worker_publishes_its_messages_after_two_intervals_whatever_the_clocks_say(
        self, published: list[str], at: Callable[[float], None], wrong_by: timedelta, *, beat_ran: bool
    ) -> None:
        substitute = BeatSubstitute()
        if beat_ran:
            write_heartbeat(HeartbeatKind.BEAT)
            Heartbeat.objects.update(seen_at=database_now() + wrong_by)
        substitute.check()
        at(139)
        substitute.check()
        assert published == []

        at(140)
        substitute.check()
        assert len(published) == len(beat_schedule())
        assert all(text.endswith(" ['period']") for text in published)  # nobody takes it for beat
        published.clear()
        at(151)
        substitute.check()
        assert [text.split()[0] for text in published] == [RUN_REPLAYS, RUN_DUE_JOBS]  # each at its own interval

    def test_it_ends_when_beat_is_back(self, published: list[str], at: Callable[[float], None]) -> None:
        substitute = BeatSubstitute()
        at(200)
        write_heartbeat(HeartbeatKind.BEAT)
        substitute.check()

        assert published == []

    def test_a_broker_that_is_away_is_only_logged(
        self, monkeypatch: pytest.MonkeyPatch, at: Callable[[float], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(task: str, headers: object) -> None:
            raise OSError

        monkeypatch.setattr(beat_substitute, "publish_periodic", refuse)
        substitute = BeatSubstitute()
        at(200)
        substitute.check()

        assert "beat is silent" in caplog.text
        assert "message not sent: OSError" in caplog.text

    def test_the_database_is_asked_every_five_seconds(self, at: Callable[[float], None]) -> None:
        substitute = BeatSubstitute()
        asked = []
        for seconds in (1, 5, 6, 9.9, 10):
            at(seconds)
            asked.append(substitute.reserve_check())

        assert asked == [False, True, False, False, True]


def test_a_failed_drain_is_no_heartbeat_of_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE notification_records RENAME TO elsewhere")
    try:
        with pytest.raises(Exception, match="notification_records"):
            deliver_due(by_beat=True)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO notification_records")

    assert last_heartbeats().beat
    assert last_heartbeats().sweep is None


def test_the_command_is_a_heartbeat_of_the_sweep() -> None:
    call_command("deliver_due", verbosity=0)

    assert last_heartbeats().sweep
    assert last_heartbeats().beat is None


def test_a_worker_counts_for_a_minute_or_until_it_stops() -> None:
    write_heartbeat(HeartbeatKind.WORKER)
    Heartbeat.objects.create(name="late:1", kind=HeartbeatKind.WORKER, seen_at=timezone.now() - timedelta(seconds=61))
    assert last_heartbeats().workers == 1

    delete_worker_heartbeat()

    assert last_heartbeats().workers == 0


def test_rows_of_killed_workers_are_deleted_after_a_day() -> None:
    old = timezone.now() - timedelta(days=1, minutes=1)
    for name, kind in (
        ("dead:1", HeartbeatKind.WORKER),
        (worker_name(), HeartbeatKind.WORKER),
        ("beat", HeartbeatKind.BEAT),
    ):
        Heartbeat.objects.create(name=name, kind=kind, seen_at=old)

    write_heartbeat(HeartbeatKind.WORKER)

    assert set(Heartbeat.objects.values_list("name", flat=True)) == {worker_name(), "beat"}


def test_a_process_writes_at_most_every_twenty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("notifications.telemetry.heartbeats.time.monotonic", lambda: now)
    results = []
    for now in (1000.0, 1019.9, 1020.0, 1020.1, 1040.0):  # noqa: B007  the clock reads it
        results.append(heartbeats.reserve_write(HeartbeatKind.SWEEP))

    assert results == [True, False, True, False, True]


def test_a_heartbeat_that_cannot_be_written_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE notification_heartbeats RENAME TO elsewhere")
    try:
        deliver_due(by_beat=True)
        delete_worker_heartbeat()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO notification_heartbeats")

    assert "heartbeat not written: ProgrammingError" in caplog.text
