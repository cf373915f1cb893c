"""Workers that are killed during a replay operation."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from notifications.replay.runner import MAX_BATCH_RECORDS
from tests.support.environment import ROOT
from tests.support.fault_environment import FaultSite, wait_until

pytestmark = pytest.mark.acceptance
CREATE_OPERATION = """
from notifications.replay.criteria import Criteria
from notifications.replay.operations import create_operation
result = create_operation(Criteria(statuses=("dead",)), None, "fixed").pk
"""
RUN = "import django; django.setup()\nfrom notifications.replay.runner import run\nrun(60)"


def test_operation_of_a_killed_worker_is_continued_and_replays_each_record_once(site: FaultSite) -> None:
    user, _key = site.add_user()
    records = site.request(user, *(f"k{number}" for number in range(3 * MAX_BATCH_RECORDS - 1)))
    site.execute("UPDATE notification_records SET status = 'dead', next_attempt_at = NULL, updated_at = now()")
    site.run(CREATE_OPERATION)

    first = site.start_worker(FAULTS="within_batch=kill")
    first.wait(60)
    assert operation(site) == ("queued", 0)
    assert site.statuses() == {"dead": len(records)}  # the unfinished batch was rolled back

    assert run(site, FAULTS="after_batch=kill") == -signal.SIGKILL
    assert operation(site) == ("running", MAX_BATCH_RECORDS)
    assert site.statuses() == {"dead": len(records) - MAX_BATCH_RECORDS, "pending": MAX_BATCH_RECORDS}

    site.start_worker()
    site.start("beat")
    wait_until(lambda: operation(site) == ("done", len(records)), lambda: f"all are replayed: {operation(site)}")
    site.wait_for_status("sent", len(records))
    assert site.sends() == dict.fromkeys(records, 1)
    assert site.rows("SELECT DISTINCT round FROM notification_records") == [(1,)]
    site.assert_promise()


def operation(site: FaultSite) -> tuple[str, int]:
    """Return status and progress of the one operation."""
    [(status, done)] = site.rows("SELECT status, done FROM notification_replay_operations")
    return status, done


def run(site: FaultSite, **env: str) -> int:
    """Run batches in another process; return its exit code."""
    return subprocess.run(
        [sys.executable, "-c", RUN], cwd=ROOT, env=site.env | env, capture_output=True, timeout=60, check=False
    ).returncode
