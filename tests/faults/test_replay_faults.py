"""Workers that are killed during a replay operation."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from dev.waiting import wait_until
from notifications.replay.runner import MAX_BATCH_RECORDS
from tests.support.fault_environment import FaultEnvironment
from tests.support.paths import ROOT

pytestmark = pytest.mark.acceptance
CREATE_OPERATION = """
from notifications.replay.criteria import Criteria
from notifications.replay.operations import create_operation
result = create_operation(Criteria(statuses=("dead",)), None, "fixed").pk
"""
RUN_BATCHES = (
    "import django; django.setup()\nfrom notifications.replay.runner import run_due_batches\nrun_due_batches(60)"
)


def test_operation_of_a_killed_worker_is_continued_and_replays_each_record_once(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user()
    records = environment.request(user, *(f"k{number}" for number in range(3 * MAX_BATCH_RECORDS - 1)))
    environment.rows("UPDATE notification_records SET status = 'dead', next_attempt_at = NULL, updated_at = now()")
    environment.run(CREATE_OPERATION)

    first = environment.start_worker(FAULTS="within_batch=kill")
    first.wait(60)
    assert operation_progress(environment) == ("queued", 0)
    assert environment.statuses() == {"dead": len(records)}  # the unfinished batch was rolled back

    assert run_batches(environment, FAULTS="after_batch=kill") == -signal.SIGKILL
    assert operation_progress(environment) == ("running", MAX_BATCH_RECORDS)
    assert environment.statuses() == {"dead": len(records) - MAX_BATCH_RECORDS, "pending": MAX_BATCH_RECORDS}

    environment.start_worker()
    environment.start("beat")
    wait_until(
        lambda: operation_progress(environment) == ("done", len(records)),
        lambda: f"all records are replayed: {operation_progress(environment)}",
    )
    environment.wait_for_status("sent", len(records))
    assert environment.sends() == dict.fromkeys(records, 1)
    assert environment.rows("SELECT DISTINCT round FROM notification_records") == [(1,)]
    environment.assert_promise()


def operation_progress(environment: FaultEnvironment) -> tuple[str, int]:
    """Return status and progress of the operation."""
    [(status, replayed)] = environment.rows("SELECT status, done FROM notification_replay_operations")
    return status, replayed


def run_batches(environment: FaultEnvironment, **env: str) -> int:
    """Run batches in another process; return its exit code."""
    return subprocess.run(
        [sys.executable, "-c", RUN_BATCHES],
        cwd=ROOT,
        env=environment.env | env,
        capture_output=True,
        timeout=60,
        check=False,
    ).returncode
