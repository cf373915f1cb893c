"""Races between real processes on one database: the receiver gets each notification once."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import psycopg2
import pytest

from dev.waiting import PATIENCE, wait_until
from tests.support.environment import ProjectEnvironment
from tests.support.paths import ROOT

pytestmark = pytest.mark.acceptance

GATE = 7_461
"""Key of the advisory lock that the processes wait for."""

NO_TIMEOUTS = {
    "NOTIFICATIONS_LEASE": "300",
    "NOTIFICATIONS_TOTAL_TIMEOUT": "100",
    "NOTIFICATIONS_READ_TIMEOUT": "100",
}
"""No lease ends and no send times out during a race, so that a second send is always an error."""

START = f"""
import django; django.setup()
from django.db import connection
from notifications.delivery.engine import Engine, engine_with_redis
from notifications.models import NotificationRecord
from notifications.service import NotificationService
from tests.support.payloads import payload_of
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_advisory_lock_shared({GATE})")
"""

DRAIN_WITHOUT_LOCKS = "Engine().deliver_due()"
DRAIN = "engine_with_redis().deliver_due()"


def race(environment: ProjectEnvironment, *programs: str) -> None:
    """Run the programs, all released at the same moment, and check that each ends without an error."""
    with contextlib.closing(psycopg2.connect(environment.env["DATABASE_URL"])) as gate, gate.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [GATE])
        env = environment.env | {"DJANGO_SETTINGS_MODULE": "smartmate.settings"} | NO_TIMEOUTS
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", START + program], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True
            )
            for program in programs
        ]
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: environment.rows(waiting)[0][0] == len(processes), "all processes wait for the lock")
        cursor.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        for process in processes:
            _out, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors


def sweep_until_sent(environment: ProjectEnvironment, count: int) -> None:
    """Sweep as beat does: a record whose key was held is sent by the next sweep."""
    program = "from notifications.delivery.engine import Engine\nEngine().deliver_due()"
    wait_until(lambda: environment.run(program) or environment.statuses() == {"sent": count}, "all are sent")


@pytest.mark.parametrize("drain", [DRAIN, DRAIN_WITHOUT_LOCKS], ids=["with locks", "by the claim alone"])
def test_drains_at_the_same_time_send_each_record_once(environment: ProjectEnvironment, drain: str) -> None:
    user, _key = environment.add_user()
    records = environment.request(user, *(f"k{number}" for number in range(400)))

    race(environment, drain, drain, drain)

    assert environment.sends() == dict.fromkeys(records, 1)
    assert environment.statuses() == {"sent": 400}


def test_drain_and_events_of_the_same_keys_send_each_record_once(environment: ProjectEnvironment) -> None:
    user, _key = environment.add_user()
    keys = [f"k{number}" for number in range(150)]
    records = environment.request(user, *keys)
    events = f"for key in {keys!r}: NotificationService().handle_feishu_requested(payload_of({user}, key))"
    backwards = f"for key in {keys[::-1]!r}: NotificationService().handle_feishu_requested(payload_of({user}, key))"

    race(environment, DRAIN, events, backwards)
    sweep_until_sent(environment, 150)

    assert environment.sends() == dict.fromkeys(records, 1)


def test_first_event_of_a_key_in_two_processes_is_sent_once(environment: ProjectEnvironment) -> None:
    user, _key = environment.add_user()
    events = f"for n in range(100): NotificationService().handle_feishu_requested(payload_of({user}, f'k{{n}}'))"

    race(environment, events, events)

    assert sorted(environment.sends().values()) == [1] * 100
    assert environment.statuses() == {"sent": 100}


def test_drain_and_two_replays_send_each_record_once(environment: ProjectEnvironment) -> None:
    user, key = environment.add_user("code:9499")
    records = environment.request(user, *(f"k{number}" for number in range(300)))
    race(environment, DRAIN)
    environment.wait_for_status("dead", 300)
    environment.sandbox.script(key, "ok")
    replay = "NotificationService().replay(NotificationRecord.objects.all(), None, 'fixed')"

    race(environment, replay, replay, f"for _ in range(20): {DRAIN}")
    sweep_until_sent(environment, 300)

    assert environment.sends() == dict.fromkeys(records, 1)
    assert environment.rows("SELECT DISTINCT status, round FROM notification_records") == [("sent", 1)]
