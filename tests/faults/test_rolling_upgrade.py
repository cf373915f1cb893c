"""Workers of the last version and of this one run side by side on the tables of this version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dev.procfile import Processes
from dev.waiting import wait_until
from tests.support.fault_environment import LOCKED_DRAIN, FaultEnvironment
from tests.support.paths import ROOT

LAST_VERSION = "54388a9c0a6c9935f80453b356d57ac442b2a7c9"
"""The last commit whose drains lock each key instead of each claim."""


@pytest.fixture(scope="module")
def last_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the last version, from the history."""
    folder = tmp_path_factory.mktemp("last_version")
    packed = subprocess.run(["git", "archive", LAST_VERSION], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("the history is not here (a shallow clone, or no clone)")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


def test_old_and_new_workers_send_each_message_once(environment: FaultEnvironment, last_version: Path) -> None:
    slots = {"NOTIFICATIONS_SEND_SLOTS": "8"}
    users = [environment.add_user("hold") for _ in range(16)]
    records = [environment.request(user, f"k{user}")[0] for user, _key in users]

    with Processes(last_version / "Procfile", environment.logs / "last", environment.env) as last:
        last.start("worker", slots)
        environment.start_worker(**slots)

        # Neither has slots for all, so that each has sent some before the first answer.
        wait_until(lambda: len(environment.sandbox.deliveries()) == len(users), "all are in flight", 120)
        environment.sandbox.release()
        environment.wait_for_status("sent", len(records))

    workers = environment.rows("SELECT count(DISTINCT worker) FROM notification_delivery_attempts")
    assert workers == [(2,)]
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_record_of_a_stopped_old_worker_is_not_sent_by_a_new_one(
    environment: FaultEnvironment, last_version: Path
) -> None:
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")
    with (environment.logs / "last-drain.log").open("wb") as log:
        stopped = subprocess.Popen(
            [sys.executable, "-c", f"import django; django.setup()\n{LOCKED_DRAIN}"],
            cwd=last_version, env=environment.env | {"FAULTS": "after_send=stop"}, stderr=log,
        )  # fmt: skip
    environment.stack.enter_context(stopped)
    environment.stack.callback(stopped.kill)
    environment.wait_for_point("after_send")

    environment.leases_run_out()
    environment.drain()

    assert environment.statuses() == {"sending": 1}
    os.kill(stopped.pid, signal.SIGCONT)
    assert stopped.wait(60) == 0
    assert environment.sends() == {record: 1}
    environment.assert_promise()
