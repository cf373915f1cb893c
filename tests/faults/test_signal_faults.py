"""Processes that are killed while they call the receivers of signals."""

from __future__ import annotations

import signal
from collections import defaultdict
from pathlib import Path

import pytest

from dev.waiting import wait_until
from tests.support.fault_environment import FaultEnvironment

pytestmark = pytest.mark.acceptance
RECORDS = 30
REPLAY = """
from notifications.api import replay_notifications
from notifications.models import NotificationRecord
result = replay_notifications(NotificationRecord.objects.filter(status="dead"), None, "fixed")
"""
COUNT = "SELECT count(*) FROM notification_events"


def first_calls(path: Path) -> dict[int, list[str]]:
    """Return the names of the signals of each record, in the order in which they arrived for the first time."""
    seen: set[str] = set()
    names: dict[int, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        record, name, event = line.split()
        if event not in seen:
            seen.add(event)
            names[int(record)].append(name)
    return names


def assert_in_order(path: Path) -> None:
    """Check that no signal of a record arrived, even again, after a later one of the same record."""
    order = {"died": 0, "replayed": 1, "delivered": 2}
    last: dict[str, int] = defaultdict(int)
    for line in path.read_text().splitlines():
        record, name, _event = line.split()
        assert order[name] >= last[record], line
        last[record] = order[name]


@pytest.mark.parametrize("point", ["events_taken", "before_receiver", "after_receiver"])
def test_fault_39_kill_at_the_relay(environment: FaultEnvironment, tmp_path: Path, point: str) -> None:
    """No signal is lost, and those of each record reach the receiver in the order of its changes."""
    path = tmp_path / "signals"
    environment.env["FAULT_SIGNALS"] = str(path)
    # Each record dies, is replayed, and is delivered.
    user, _key = environment.add_user(*["code:9499"] * RECORDS, "ok")
    records = environment.request(user, *(f"k{number}" for number in range(RECORDS)))
    environment.drain_until({"dead": RECORDS})
    assert environment.run(REPLAY) == RECORDS
    environment.drain_until({"sent": RECORDS})
    assert environment.rows(COUNT) == [(3 * RECORDS,)]

    killed = environment.start_driver(FAULTS=f"{point}=kill")
    assert killed.wait(60) == -signal.SIGKILL
    assert environment.rows(COUNT) > [(0,)]
    drivers = [environment.start_driver(), environment.start_driver()]

    wait_until(lambda: environment.rows(COUNT) == [(0,)], lambda: f"all are relayed: {environment.rows(COUNT)}", 60)
    for driver in drivers:
        assert driver.terminate(40) == 0
    assert first_calls(path) == {record: ["died", "replayed", "delivered"] for record in records}
    assert_in_order(path)
    environment.assert_promise()


def test_fault_39_kill_of_a_worker(environment: FaultEnvironment, tmp_path: Path) -> None:
    path = tmp_path / "signals"
    environment.env["FAULT_SIGNALS"] = str(path)
    user, _key = environment.add_user()
    worker = environment.start_worker(FAULTS="before_receiver=kill")
    records = environment.request(user, *(f"k{number}" for number in range(RECORDS)))
    worker.wait(60)

    environment.start_worker()
    environment.start("beat")
    environment.leases_run_out()
    environment.locks_run_out()

    environment.wait_for_status("sent", RECORDS)
    wait_until(lambda: environment.rows(COUNT) == [(0,)], lambda: f"all are relayed: {environment.rows(COUNT)}", 60)
    assert first_calls(path) == {record: ["delivered"] for record in records}
    environment.assert_promise()
