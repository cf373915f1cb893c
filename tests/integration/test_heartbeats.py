"""Heartbeats of beat, sweep and workers, as the database has them."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from celery import current_app
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from notifications import tasks
from notifications.beat import BEAT_HEADER
from notifications.models import Heartbeat
from notifications.states import HeartbeatKind
from notifications.telemetry import heartbeats
from notifications.telemetry.heartbeats import delete_worker_heartbeat, last_heartbeats, write_heartbeat
from notifications.telemetry.process import worker_name

pytestmark = pytest.mark.django_db(transaction=True)


def deliver_due(**headers: bool) -> None:
    """Run the task as a worker does that got a message with these headers."""
    tasks.deliver_due.push_request(headers=headers)  # type: ignore[call-arg]
    try:
        tasks.deliver_due.run()
    finally:
        tasks.deliver_due.pop_request()


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

    assert schedule["options"]["headers"] == {BEAT_HEADER: True}


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
