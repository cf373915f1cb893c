"""PostgreSQL restarts, crashes, loses connections or does not answer, alone and together with Redis."""

from __future__ import annotations

import re

import pytest

from dev.waiting import wait_until
from tests.support.fault_environment import FaultEnvironment
from tests.support.payloads import payload_of

pytestmark = pytest.mark.acceptance
SHORT_LEASE = {"NOTIFICATIONS_LEASE": "4"}


def test_fault_09_commit_reply_lost(environment: FaultEnvironment) -> None:
    proxy, env = environment.proxy("DATABASE_URL")
    user, _key = environment.add_user()
    proxy.lose_reply_to(b"COMMIT")

    with pytest.raises(AssertionError, match="OperationalError"):  # the caller does not know whether it was committed
        environment.request(user, "k", **env)
    [record] = environment.request(user, "k")  # so the caller requests it again
    environment.drain()

    assert proxy.lost_replies == 1
    assert environment.statuses() == {"sent": 1}
    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_21_pg_kill_backends(environment: FaultEnvironment) -> None:
    environment.env.update(SHORT_LEASE)
    worker = environment.start_worker()
    environment.start("beat")
    user, _key = environment.add_user("slow:0.05")
    records = environment.request(user, *(f"k{number}" for number in range(300)))
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    for _ in range(8):
        sent = environment.statuses().get("sent", 0)
        environment.rows(f"SELECT pg_terminate_backend(pid) FROM ({others}) AS backend")
        wait_until(lambda sent=sent: environment.statuses().get("sent", 0) >= min(sent + 10, 300), "more are sent")  # type: ignore[misc]

    environment.wait_for_status("sent", len(records))
    assert environment.sends() == dict.fromkeys(records, 1)
    worker.terminate(40)
    wait_until(lambda: len(environment.rows(others)) <= 1, "no connection is left open")  # beat has none
    environment.assert_promise()


def test_fault_22_pg_immediate_stop(own_environment: FaultEnvironment) -> None:
    environment = own_environment
    assert environment.postgres
    user, _key = environment.add_user()
    records = environment.request(user, *(f"k{number}" for number in range(20)))
    drain = environment.start_drain(FAULTS="before_settle=hold")
    environment.wait_for_point("before_settle")

    environment.postgres.crash()
    environment.release_point("before_settle")
    with pytest.raises(AssertionError, match="OperationalError"):
        environment.request(records[0], "fails")
    environment.postgres.start()

    assert drain.wait(60) == 0
    assert environment.statuses() == {"sent": len(records)}
    assert environment.sends() == dict.fromkeys(records, 1)  # the results in memory were kept
    environment.assert_promise()


def test_fault_22_nothing_is_sent_while_postgresql_is_away(own_environment: FaultEnvironment) -> None:
    environment = own_environment
    assert environment.postgres
    worker = environment.start_worker()
    beat = environment.start("beat")
    user, _key = environment.add_user()
    environment.request(user, "before")
    environment.wait_for_status("sent", 1)

    environment.postgres.crash()
    failed = re.compile(r"Task notifications\.deliver_due\S+ raised unexpected: OperationalError")
    wait_until(lambda: failed.search(worker.log), "the worker logs that a sweep failed")
    assert len(environment.sandbox.deliveries()) == 1
    environment.postgres.start()
    [record] = environment.request(user, "after")

    environment.wait_for_status("sent", 2)
    assert environment.sends()[record] == 1
    assert worker.alive
    assert beat.alive
    environment.assert_promise()


def test_fault_22_a_listener_is_woken_again_after_a_crash_of_postgresql(own_environment: FaultEnvironment) -> None:
    environment = own_environment
    assert environment.postgres
    environment.env["NOTIFICATIONS_NUDGE"] = "notify"
    worker = environment.start_worker()
    wait_until(lambda: "nudge.listening" in worker.log, "the worker listens")
    user, _key = environment.add_user()
    environment.request(user, "before")
    environment.wait_for_status("sent", 1)

    environment.postgres.crash()
    environment.postgres.start()
    environment.request(user, "between")
    wait_until(lambda: worker.log.count("nudge.listening") == 2, "the worker listens again")
    environment.wait_for_status("sent", 2)
    records = environment.request(user, "after")  # no beat runs: only a notification can start a drain

    environment.wait_for_status("sent", 3)
    assert environment.sends()[records[0]] == 1
    environment.assert_promise()


def test_fault_23_pg_half_open(environment: FaultEnvironment) -> None:
    environment.env.update(SHORT_LEASE, DATABASE_TIMEOUT="1")
    proxy, env = environment.proxy("DATABASE_URL")
    user, _key = environment.add_user("slow:0.05")
    worker = environment.start_worker(**env)
    environment.start("beat")
    records = environment.request(user, *(f"k{number}" for number in range(100)))
    wait_until(lambda: environment.statuses().get("sent", 0) > 5, "some are sent")

    proxy.mode = "silent"
    wait_until(
        lambda: "did not answer in time" in worker.log or "settle.delayed" in worker.log,
        "the worker logs the timeout or settle.delayed",
    )
    proxy.mode = "pass"
    proxy.reset_all()

    environment.wait_for_status("sent", len(records))
    assert worker.alive
    assert environment.sends().keys() == set(records)
    environment.assert_promise()


def test_fault_24_both_down(own_environment: FaultEnvironment) -> None:
    environment = own_environment
    assert environment.postgres
    # The leases end by themselves. A test that ended them would do so while the worker still sends.
    worker = environment.start_worker(NOTIFICATIONS_LEASE="15")
    beat = environment.start("beat")
    user, _key = environment.add_user("slow:0.05")
    records = environment.request(user, *(f"k{number}" for number in range(100)))

    environment.valkey.kill()
    environment.postgres.crash()
    with pytest.raises(AssertionError, match="OperationalError"):
        environment.request(user, "refused")
    wait_until(
        lambda: "Connection to broker lost" in worker.log or "Error 111" in worker.log,
        "the worker logs the lost broker or database",
    )
    environment.postgres.start()
    environment.valkey.start()
    records += environment.request(user, "after")

    environment.wait_for_status("sent", len(records))
    assert environment.sends().keys() == set(records)
    assert worker.alive
    assert beat.alive
    environment.assert_promise()


def test_event_during_a_postgresql_outage_is_delivered_afterwards(own_environment: FaultEnvironment) -> None:
    environment = own_environment
    assert environment.postgres
    worker = environment.start_worker()
    user, _key = environment.add_user()
    environment.postgres.crash()

    environment.send_event(payload_of(user, "k"))
    wait_until(lambda: "event.put_back" in worker.log, "the worker logs event.put_back")
    environment.postgres.start()

    environment.wait_for_status("sent", 1)
    assert list(environment.sends().values()) == [1]
    environment.assert_promise()
