"""Redis crashes, freezes, is full or read-only, restarts, or loses replies."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.keeper import private_directory
from dev.other_app import other_app
from dev.valkey import Valkey
from tests.support.fault_environment import FaultSite, payload, stopped, wait_until

pytestmark = pytest.mark.acceptance
SHORT_LEASE = {"NOTIFICATIONS_LEASE": "4"}


@contextlib.contextmanager
def repeated_drains(site: FaultSite, number: int) -> Iterator[None]:
    """Run this many drains with locks, again and again, during the block."""
    over = threading.Event()

    def drain_repeatedly() -> None:
        while not over.is_set():
            site.drain_with()

    threads = [threading.Thread(target=drain_repeatedly) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_fault_06_brpop_gap(site: FaultSite) -> None:
    proxy, env = site.proxy("REDIS_URL")
    site.start_worker(**env)
    user, _key = site.add_user()
    proxy.lose_reply_with(b"notifications.deliver_due")  # the message leaves the queue and never reaches the worker

    [record] = site.request(user, "k")
    wait_until(lambda: proxy.lost_replies, "the nudge is lost")
    assert site.statuses() == {"pending": 1}
    site.start("beat")

    site.wait_for_status("sent", 1)
    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_07_publish_reply_lost(site: FaultSite) -> None:
    proxy, env = site.proxy("REDIS_URL")
    user, _key = site.add_user()
    proxy.lose_reply_to(b"LPUSH")

    [record] = site.request(user, "k", **env)
    assert proxy.lost_replies == 1
    site.start_worker()
    site.start("beat")

    site.wait_for_status("sent", 1)
    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_08_rollback(site: FaultSite) -> None:
    user, _key = site.add_user()

    site.run(
        "from django.db import transaction\n"
        "from notifications.api import request_notification\n"
        "from tests.support.environment import payload\n"
        "try:\n"
        "    with transaction.atomic():\n"
        f"        request_notification(payload({user}, 'k'))\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    pass"
    )
    site.drain()

    assert site.statuses() == {}
    assert site.sends() == {}
    with site.redis() as client:
        assert client.llen("deliver") == 0


def test_fault_10_crash_between_commit_and_hint(site: FaultSite) -> None:
    user, _key = site.add_user()

    with pytest.raises(AssertionError):  # the requesting process dies
        site.request(user, "k", FAULTS="before_nudge=kill")
    assert site.reached("before_nudge")
    site.start_worker()
    site.start("beat")

    site.wait_for_status("sent", 1)
    assert list(site.sends().values()) == [1]
    site.assert_promise()


def test_fault_11_redis_down_at_intake(site: FaultSite) -> None:
    user, _key = site.add_user()
    site.valkey.kill()

    records = site.request(user, "a", "b")
    assert site.statuses() == {"pending": 2}
    site.start_driver()

    site.wait_for_status("sent", 2)
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


def test_fault_11_a_worker_recovers_within_a_sweep_of_redis_return(site: FaultSite) -> None:
    site.start_worker()
    site.start("beat")
    user, _key = site.add_user()
    site.valkey.kill()
    records = site.request(user, "a", "b")

    site.valkey.start()

    site.wait_for_status("sent", 2)  # without another nudge: the sweep claimed them
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


def test_fault_12_redis_blackhole(site: FaultSite) -> None:
    site.start_worker()
    site.start("beat")
    user, _key = site.add_user()

    with stopped(site.valkey.pid):
        during = site.request(user, "during")  # returns, although Redis accepts the connection and never answers
        assert site.manage("deliver_due").returncode == 0
        assert site.sends() == dict.fromkeys(during, 1)
    after = site.request(user, "after")

    site.wait_for_status("sent", 2)
    assert site.sends() == dict.fromkeys(during + after, 1)
    site.assert_promise()


def test_fault_13_redis_restart_x5(site: FaultSite) -> None:
    site.start_worker()
    site.start("beat")
    user, _key = site.add_user()
    records: list[int] = []

    for restart in range(5):
        records += site.request(user, *(f"{restart}-{number}" for number in range(50)))
        site.valkey.kill()
        site.valkey.start()
        records += site.request(user, f"{restart}-after")

    site.wait_for_status("sent", len(records))
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


def test_fault_14_redis_flushall(site: FaultSite) -> None:
    user, _key = site.add_user("slow:0.05")
    drivers = [site.start_driver(), site.start_driver()]  # without locks
    records = site.request(user, *(f"k{number}" for number in range(600)))

    with repeated_drains(site, 2), site.redis() as client:

        def flush() -> bool:
            client.flushall()
            return site.statuses() == {"sent": len(records)}

        wait_until(flush, "all are sent")

    assert all(driver.alive for driver in drivers)
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


def test_fault_15_redis_client_kill(site: FaultSite) -> None:
    site.start_worker()
    site.start("beat")
    drivers = [site.start_driver(), site.start_driver()]  # without locks
    user, _key = site.add_user("slow:0.05")
    records = site.request(user, *(f"k{number}" for number in range(300)))
    other = other_app(site.valkey.url)
    for number in range(50):
        event = payload(user, f"k{number}")  # a duplicate event of each
        other.send_task("notification.feishu.requested", args=[event], queue="notifications")

    with site.redis() as client:

        def cut() -> bool:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            return site.statuses() == {"sent": len(records)}

        wait_until(cut, "all are sent")

    assert all(driver.alive for driver in drivers)
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


@pytest.mark.parametrize(
    ("hurt", "heal"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    ],
    ids=["out of memory", "read-only"],
)
def test_fault_16_redis_oom_readonly(site: FaultSite, hurt: list[str], heal: list[str]) -> None:
    worker = site.start_worker()
    site.start("beat")
    user, _key = site.add_user()
    site.request(user, "before")
    site.wait_for_status("sent", 1)

    with site.redis() as client:
        client.execute_command(*hurt)
        site.request(user, "during")
        assert site.manage("deliver_due").returncode == 0
        site.wait_for_status("sent", 2)
        client.execute_command(*heal)
    site.request(user, "after")

    site.wait_for_status("sent", 3)
    assert worker.alive
    assert set(site.sends().values()) == {1}
    site.assert_promise()


def test_fault_17_redis_failover(site: FaultSite, tmp_path: Path) -> None:
    user, key = site.add_user("hold")
    [record] = site.request(user, "k")
    long = {"NOTIFICATIONS_TOTAL_TIMEOUT": "60", "NOTIFICATIONS_READ_TIMEOUT": "60"}

    with private_directory() as folder, Valkey(folder) as replica:  # the replica does not have the lock
        first = site.start_drain(**long)
        site.sandbox.wait_for(1, 60, key=key)
        site.drain_with(REDIS_URL=replica.url, **long)
        site.sandbox.release()
        assert first.wait(60) == 0

    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_19_lock_reply_lost(site: FaultSite) -> None:
    site.env.update(SHORT_LEASE)
    proxy, env = site.proxy("REDIS_URL")
    user, _key = site.add_user()
    [record] = site.request(user, "k")
    proxy.lose_reply_to(b"smartmate:lock:")

    site.drain_with(**env)
    assert (proxy.lost_replies, site.sends()) == (1, {record: 1})
    with site.redis() as client:
        assert len(list(client.scan_iter("smartmate:lock:*"))) == 1  # a lock without an owner
    site.run("from notifications.models import NotificationRecord as R\n"
             "from notifications.service import NotificationService\n"
             "NotificationService().replay(R.objects.all(), None, 'again', force=True)")  # fmt: skip
    site.drain_until({"sent": 1})

    assert site.sends() == {record: 2}
    assert site.attempts("round", "number", "outcome") == [(0, 1, "success"), (1, 1, "success")]
    assert site.where_secrets_are() == []


def test_fault_26_two_beats(site: FaultSite) -> None:
    site.start_worker()
    site.start_worker()
    site.start("beat")
    site.start("beat")
    user, _key = site.add_user("status:503", "status:503", "ok")

    records = site.request(user, *(f"k{number}" for number in range(60)))

    site.wait_for_status("sent", len(records))
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


def test_fault_26_no_beat(site: FaultSite) -> None:
    user, _key = site.add_user("status:503", "ok")
    site.start_driver()

    [record] = site.request(user, "k")

    site.wait_for_status("sent", 1)
    assert site.sends() == {record: 1}
    assert site.attempts("number", "cause") == [(1, "event"), (2, "sweep")]
    site.assert_promise()
