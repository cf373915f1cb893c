"""Races between real processes on one database: the receiver gets each notification once."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import psycopg2
import pytest

from tests.support.environment import PATIENCE, ROOT, Site, wait_until

pytestmark = pytest.mark.acceptance

GATE = 7_461
"""Key of the advisory lock that the processes wait for."""

START = f"""
import django; django.setup()
from django.db import connection
from notifications.delivery.engine import Engine, engine_with_redis
from notifications.models import NotificationRecord
from notifications.service import NotificationService
from tests.support.environment import payload
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_advisory_lock_shared({GATE})")
"""

DRAIN_WITHOUT_LOCKS = "Engine().deliver_due()"
DRAIN = "engine_with_redis().deliver_due()"


def race(site: Site, *programs: str) -> None:
    """Run the programs, all released at the same moment, and check that each ends without an error."""
    with contextlib.closing(psycopg2.connect(site.env["DATABASE_URL"])) as gate, gate.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [GATE])
        env = site.env | {"DJANGO_SETTINGS_MODULE": "smartmate.settings"}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", START + program], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True
            )
            for program in programs
        ]
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_until(lambda: site.rows(waiting)[0][0] == len(processes), "all processes wait for the lock")
        cursor.execute("SELECT pg_advisory_unlock(%s)", [GATE])
        for process in processes:
            _out, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors


def sweep_until_sent(site: Site, count: int) -> None:
    """Sweep as beat does: a record whose key was held is sent by the next sweep."""
    program = "from notifications.delivery.engine import Engine\nEngine().deliver_due()"
    wait_until(lambda: site.run(program) or site.statuses() == {"sent": count}, "all are sent")


@pytest.mark.parametrize("drain", [DRAIN, DRAIN_WITHOUT_LOCKS], ids=["with locks", "by the claim alone"])
def test_drains_at_the_same_time_send_each_record_once(site: Site, drain: str) -> None:
    user, _key = site.add_user()
    records = site.request(user, *(f"k{number}" for number in range(400)))

    race(site, drain, drain, drain)

    assert site.sends() == dict.fromkeys(records, 1)
    assert site.statuses() == {"sent": 400}


def test_drain_and_events_of_the_same_keys_send_each_record_once(site: Site) -> None:
    user, _key = site.add_user()
    keys = [f"k{number}" for number in range(150)]
    records = site.request(user, *keys)
    events = f"for key in {keys!r}: NotificationService().handle_feishu_requested(payload({user}, key))"
    backwards = f"for key in {keys[::-1]!r}: NotificationService().handle_feishu_requested(payload({user}, key))"

    race(site, DRAIN, events, backwards)
    sweep_until_sent(site, 150)

    assert site.sends() == dict.fromkeys(records, 1)


def test_first_event_of_a_key_in_two_processes_is_sent_once(site: Site) -> None:
    user, _key = site.add_user()
    events = f"for n in range(100): NotificationService().handle_feishu_requested(payload({user}, f'k{{n}}'))"

    race(site, events, events)

    assert sorted(site.sends().values()) == [1] * 100
    assert site.statuses() == {"sent": 100}


def test_drain_and_two_replays_send_each_record_once(site: Site) -> None:
    user, key = site.add_user("code:9499")
    records = site.request(user, *(f"k{number}" for number in range(300)))
    race(site, DRAIN)
    site.wait_for_status("dead", 300)
    site.sandbox.script(key, "ok")
    replay = "NotificationService().replay(NotificationRecord.objects.all(), None, 'fixed')"

    race(site, replay, replay, f"for _ in range(20): {DRAIN}")
    sweep_until_sent(site, 300)

    assert site.sends() == dict.fromkeys(records, 1)
    assert site.rows("SELECT DISTINCT status, round FROM notification_records") == [("sent", 1)]
