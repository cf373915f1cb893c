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
from dev.waiting import wait_until
from tests.support.fault_environment import FaultEnvironment, stopped
from tests.support.payloads import payload_of

pytestmark = pytest.mark.acceptance
SHORT_LEASE = {"NOTIFICATIONS_LEASE": "4"}


@contextlib.contextmanager
def repeated_drains(environment: FaultEnvironment, number: int) -> Iterator[None]:
    """Run this many drains with locks, again and again, during the block."""
    over = threading.Event()

    def drain_repeatedly() -> None:
        while not over.is_set():
            environment.drain_with()

    threads = [threading.Thread(target=drain_repeatedly) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_fault_06_brpop_gap(environment: FaultEnvironment) -> None:
    environment.env["NOTIFICATIONS_NUDGE"] = "redis"
    proxy, env = environment.proxy("REDIS_URL")
    environment.start_worker(**env)
    user, _key = environment.add_user()
    proxy.lose_reply_with(b"wakeups")  # the nudge leaves the list and never reaches the worker

    [record] = environment.request(user, "k")
    wait_until(lambda: proxy.lost_replies, "the nudge is lost")
    assert environment.statuses() == {"pending": 1}
    environment.start("beat")

    environment.wait_for_status("sent", 1)
    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_07_publish_reply_lost(environment: FaultEnvironment) -> None:
    proxy, env = environment.proxy("REDIS_URL")
    user, _key = environment.add_user()
    proxy.lose_reply_to(b"LPUSH")

    [record] = environment.request(user, "k", **env)
    assert proxy.lost_replies == 1
    environment.start_worker()
    environment.start("beat")

    environment.wait_for_status("sent", 1)
    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_08_rollback(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user()

    environment.run(
        "from django.db import transaction\n"
        "from notifications.api import request_notification\n"
        "from tests.support.payloads import payload_of\n"
        "try:\n"
        "    with transaction.atomic():\n"
        f"        request_notification(payload_of({user}, 'k'))\n"
        "        raise KeyError\n"
        "except KeyError:\n"
        "    pass"
    )
    environment.drain()

    assert environment.statuses() == {}
    assert environment.sends() == {}
    with environment.redis() as client:
        assert client.llen("deliver") == 0


def test_fault_10_crash_between_commit_and_hint(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user()

    with pytest.raises(AssertionError):  # the requesting process dies
        environment.request(user, "k", FAULTS="before_nudge=kill")
    assert environment.reached("before_nudge")
    environment.start_worker()
    environment.start("beat")

    environment.wait_for_status("sent", 1)
    assert list(environment.sends().values()) == [1]
    environment.assert_promise()


def test_fault_11_redis_down_at_intake(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user()
    environment.valkey.kill()

    records = environment.request(user, "a", "b")
    assert environment.statuses() == {"pending": 2}
    environment.start_driver()

    environment.wait_for_status("sent", 2)
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_fault_11_a_worker_recovers_within_a_sweep_of_redis_return(environment: FaultEnvironment) -> None:
    environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user()
    environment.valkey.kill()
    records = environment.request(user, "a", "b")

    environment.valkey.start()

    environment.wait_for_status("sent", 2)  # without another nudge: the sweep claimed them
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_fault_12_redis_blackhole(environment: FaultEnvironment) -> None:
    environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user()

    with stopped(environment.valkey.pid):
        during = environment.request(user, "during")  # returns, although Redis accepts the connection and never answers
        assert environment.manage("deliver_due").returncode == 0
        assert environment.sends() == dict.fromkeys(during, 1)
    after = environment.request(user, "after")

    environment.wait_for_status("sent", 2)
    assert environment.sends() == dict.fromkeys(during + after, 1)
    environment.assert_promise()


def test_fault_13_redis_restart_x5(environment: FaultEnvironment) -> None:
    environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user()
    records: list[int] = []

    for restart in range(5):
        records += environment.request(user, *(f"{restart}-{number}" for number in range(50)))
        environment.valkey.kill()
        environment.valkey.start()
        records += environment.request(user, f"{restart}-after")

    environment.wait_for_status("sent", len(records))
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_fault_14_redis_flushall(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user("slow:0.05")
    drivers = [environment.start_driver(), environment.start_driver()]  # without locks
    records = environment.request(user, *(f"k{number}" for number in range(600)))

    with repeated_drains(environment, 2), environment.redis() as client:

        def flush() -> bool:
            client.flushall()
            return environment.statuses() == {"sent": len(records)}

        wait_until(flush, "all are sent")

    assert all(driver.alive for driver in drivers)
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_fault_15_redis_client_kill(environment: FaultEnvironment) -> None:
    environment.start_worker()
    environment.start("beat")
    drivers = [environment.start_driver(), environment.start_driver()]  # without locks
    user, _key = environment.add_user("slow:0.05")
    records = environment.request(user, *(f"k{number}" for number in range(300)))
    other = other_app(environment.valkey.url)
    for number in range(50):
        event = payload_of(user, f"k{number}")  # a duplicate event of each
        other.send_task("notification.feishu.requested", args=[event], queue="notifications")

    with environment.redis() as client:

        def cut() -> bool:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal")
            return environment.statuses() == {"sent": len(records)}

        wait_until(cut, "all are sent")

    assert all(driver.alive for driver in drivers)
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


@pytest.mark.parametrize(
    ("hurt", "heal"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
    ],
    ids=["out of memory", "read-only"],
)
def test_fault_16_redis_oom_readonly(environment: FaultEnvironment, hurt: list[str], heal: list[str]) -> None:
    worker = environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user()
    environment.request(user, "before")
    environment.wait_for_status("sent", 1)

    with environment.redis() as client:
        client.execute_command(*hurt)
        environment.request(user, "during")
        assert environment.manage("deliver_due").returncode == 0
        environment.wait_for_status("sent", 2)
        client.execute_command(*heal)
    environment.request(user, "after")

    environment.wait_for_status("sent", 3)
    assert worker.alive
    assert set(environment.sends().values()) == {1}
    environment.assert_promise()


def test_fault_17_redis_failover(environment: FaultEnvironment, tmp_path: Path) -> None:
    user, key = environment.add_user("hold")
    [record] = environment.request(user, "k")
    long = {"NOTIFICATIONS_TOTAL_TIMEOUT": "60", "NOTIFICATIONS_READ_TIMEOUT": "60"}

    with private_directory() as folder, Valkey(folder) as replica:  # the replica does not have the lock
        first = environment.start_drain(**long)
        environment.sandbox.wait_for(1, 60, key=key)
        environment.drain_with(REDIS_URL=replica.url, **long)
        environment.sandbox.release()
        assert first.wait(60) == 0

    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_19_lock_reply_lost(environment: FaultEnvironment) -> None:
    environment.env.update(SHORT_LEASE)
    proxy, env = environment.proxy("REDIS_URL")
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")
    proxy.lose_reply_to(b"smartmate:claim:")

    environment.drain_with(**env)
    assert (proxy.lost_replies, environment.sends()) == (1, {record: 1})
    with environment.redis() as client:
        assert len(list(client.scan_iter("smartmate:claim:*"))) == 1  # the lock is there all the same
    environment.run("from notifications.models import NotificationRecord as R\n"
             "from notifications.service import NotificationService\n"
             "NotificationService().replay(R.objects.all(), None, 'again', force=True)")  # fmt: skip
    environment.drain_until({"sent": 1})

    assert environment.sends() == {record: 2}
    assert environment.attempts("round", "number", "outcome") == [(0, 1, "success"), (1, 1, "success")]
    assert environment.where_secrets_are() == []


def test_fault_26_two_beats(environment: FaultEnvironment) -> None:
    environment.start_worker()
    environment.start_worker()
    environment.start("beat")
    environment.start("beat")
    user, _key = environment.add_user("status:503", "status:503", "ok")

    records = environment.request(user, *(f"k{number}" for number in range(60)))

    environment.wait_for_status("sent", len(records))
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_fault_26_no_beat(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user("status:503", "ok")
    environment.start_driver()

    [record] = environment.request(user, "k")

    environment.wait_for_status("sent", 1)
    assert environment.sends() == {record: 1}
    assert environment.attempts("number", "cause") == [(1, "event"), (2, "sweep")]
    environment.assert_promise()
