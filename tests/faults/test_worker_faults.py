"""Workers that are killed, stopped or short of resources at every step of a delivery."""

from __future__ import annotations

import os
import signal

import pytest

from dev.waiting import wait_until
from tests.support.fault_environment import FaultEnvironment, stopped

pytestmark = pytest.mark.acceptance
SHORT_LEASE = {"NOTIFICATIONS_LEASE": "4"}


def test_fault_01_kill_before_claim(environment: FaultEnvironment) -> None:
    worker = environment.start_worker(FAULTS="received=kill", NOTIFICATIONS_NUDGE="celery")
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")
    worker.wait(60)

    environment.start_worker()
    environment.start("beat")

    environment.wait_for_status("sent", 1)
    assert environment.sends() == {record: 1}
    assert environment.attempts("number", "cause", "outcome") == [(1, "event", "success")]
    environment.assert_promise()


def test_fault_02_kill_after_claim(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")
    assert environment.drain_with(FAULTS="after_claim=kill").returncode == -signal.SIGKILL

    environment.drain()
    assert environment.sends() == {}  # its lease has not ended
    environment.leases_run_out()
    environment.drain()

    assert environment.sends() == {record: 1}
    assert environment.attempts("number", "cause", "outcome") == [(1, "event", "lost"), (2, "recovery", "success")]
    environment.assert_promise()


def test_fault_03_kill_after_http(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")
    assert environment.drain_with(FAULTS="after_send=kill").returncode == -signal.SIGKILL

    environment.drain()
    environment.leases_run_out()
    environment.drain()
    assert environment.sends() == {record: 1}  # its lock has not ended
    environment.locks_run_out()
    environment.drain_until({"sent": 1})

    assert environment.sends() == {record: 2}  # no process can know that the first message arrived
    assert environment.attempts("number", "outcome") == [(1, "lost"), (2, "success")]
    environment.assert_promise()


def test_fault_03_kill_after_settle(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")

    assert environment.drain_with(FAULTS="after_settle=kill").returncode == -signal.SIGKILL
    environment.locks_run_out()
    environment.drain()

    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_04_kill_storm(environment: FaultEnvironment) -> None:
    environment.env.update(SHORT_LEASE)
    user, _key = environment.add_user("slow:0.05")
    drivers = [environment.start_driver(), environment.start_driver()]
    records: list[int] = []

    for kill in range(10):
        sent = environment.statuses().get("sent", 0)
        records += environment.request(user, *(f"{kill}-{number}" for number in range(200)))
        wait_until(lambda sent=sent: environment.statuses().get("sent", 0) > sent, "some are sent")  # type: ignore[misc]
        drivers.pop(0).kill()
        drivers.append(environment.start_driver())

    environment.wait_for_status("sent", len(records))
    assert environment.sends().keys() == set(records)
    environment.assert_promise()


def give_order_keys(environment: FaultEnvironment, keys: int) -> None:
    """Share the records out to order keys, in turn."""
    environment.rows(f"UPDATE notification_records SET order_key = 'order-' || mod(id, {keys}) RETURNING id")


def arrivals(environment: FaultEnvironment, keys: int) -> dict[int, list[int]]:
    """Return the messages of each order key as they arrived, repeated ones included."""
    arrived: dict[int, list[int]] = {key: [] for key in range(keys)}
    for delivery in environment.sandbox.deliveries(accepted=True):
        assert delivery.notification_id is not None
        arrived[delivery.notification_id % keys].append(delivery.notification_id)
    return arrived


@pytest.mark.parametrize(("point", "copies"), [("after_claim", 1), ("after_send", 2)])
def test_fault_38_killed_worker_keeps_the_order_of_a_key(
    environment: FaultEnvironment, point: str, copies: int
) -> None:
    user, _key = environment.add_user()
    records = environment.request(user, "k1", "k2", "k3")
    give_order_keys(environment, 1)
    assert environment.drain_with(FAULTS=f"{point}=kill").returncode == -signal.SIGKILL

    environment.drain()
    assert list(environment.sends()) == records[: copies - 1]  # the lease of the first has not ended, the others wait
    environment.leases_run_out()
    environment.locks_run_out()
    environment.drain_until({"sent": 3})

    assert arrivals(environment, 1)[0] == [records[0]] * copies + records[1:]
    environment.assert_promise()


def test_fault_38_kill_storm_keeps_the_order_of_each_key(environment: FaultEnvironment) -> None:
    environment.env.update(SHORT_LEASE)
    user, _key = environment.add_user("slow:0.02")
    records = environment.request(user, *(f"{number:03}" for number in range(200)))
    give_order_keys(environment, 10)
    drivers = [environment.start_driver(), environment.start_driver()]

    for _kill in range(4):
        sent = environment.statuses().get("sent", 0)
        wait_until(lambda sent=sent: environment.statuses().get("sent", 0) > sent, "some are sent")  # type: ignore[misc]
        drivers.pop(0).kill()
        drivers.append(environment.start_driver())

    environment.wait_for_status("sent", len(records))
    assert {key: pks == sorted(pks) for key, pks in arrivals(environment, 10).items()} == dict.fromkeys(range(10), True)
    environment.assert_promise()


def test_fault_05_term_storm(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user("slow:0.05")
    records = environment.request(user, *(f"k{number}" for number in range(400)))
    workers = [environment.start_worker()]

    while environment.statuses().get("sent", 0) < len(records):
        sent = environment.statuses().get("sent", 0)
        environment.run("from notifications.broker.nudge import nudge; nudge()")
        wait_until(lambda sent=sent: environment.statuses().get("sent", 0) > sent, "some are sent")  # type: ignore[misc]
        workers.append(environment.start_worker())
        assert workers.pop(0).terminate(40) == 0
        assert "sending" not in environment.statuses() or workers  # the next worker may have claimed already

    assert environment.sends() == dict.fromkeys(records, 1)
    assert environment.attempts("outcome") == [("success",)] * len(records)
    environment.assert_promise()


def test_fault_05_stopped_worker_leaves_nothing_in_sending(environment: FaultEnvironment) -> None:
    worker = environment.start_worker(FAULTS="after_send=hold")
    user, _key = environment.add_user()
    records = environment.request(user, *(f"k{number}" for number in range(100)))
    environment.wait_for_point("after_send")

    worker.ask_to_end()
    wait_until(lambda: "Warm shutdown" in worker.log, "the worker logs its warm shutdown")
    environment.release_point("after_send")

    assert worker.wait(60) == 0
    assert "sending" not in environment.statuses()
    environment.drain()
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_fault_18_lock_expires_while_its_holder_sends(environment: FaultEnvironment) -> None:
    user, key = environment.add_user("hold")
    [record] = environment.request(user, "k")
    first = environment.start_drain(NOTIFICATIONS_TOTAL_TIMEOUT="60", NOTIFICATIONS_READ_TIMEOUT="60")
    environment.sandbox.wait_for(1, 60, key=key)

    environment.locks_run_out()
    environment.drain()
    environment.sandbox.release()

    assert first.wait(60) == 0
    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_20_stale_failure_changes_nothing(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user("status:500", "ok")
    [record] = environment.request(user, "k")
    stale = environment.start_drain(FAULTS="after_send=stop")
    environment.wait_for_point("after_send")

    environment.leases_run_out()
    environment.locks_run_out()
    environment.drain()
    os.kill(stale.pid, signal.SIGCONT)

    assert stale.wait(60) == 0
    assert environment.statuses() == {"sent": 1}
    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_20_stale_success_stops_further_sends(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user("ok", "status:500")
    [record] = environment.request(user, "k")
    stale = environment.start_drain(FAULTS="after_send=stop")
    environment.wait_for_point("after_send")

    environment.leases_run_out()
    environment.locks_run_out()
    environment.drain()
    assert environment.statuses() == {"failed": 1}
    os.kill(stale.pid, signal.SIGCONT)

    assert stale.wait(60) == 0
    assert environment.statuses() == {"sent": 1}
    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_20_record_of_a_stopped_worker_with_its_key_is_not_sent_again(
    environment: FaultEnvironment,
) -> None:
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")
    stalled = environment.start_drain(FAULTS="after_send=stop")
    environment.wait_for_point("after_send")

    environment.leases_run_out()
    environment.drain()
    os.kill(stalled.pid, signal.SIGCONT)

    assert stalled.wait(60) == 0
    assert environment.sends() == {record: 1}
    assert environment.attempts("number", "outcome") == [(1, "success")]
    environment.assert_promise()


def test_fault_20_worker_stopped_past_its_lease_sends_nothing(environment: FaultEnvironment) -> None:
    environment.env.update(SHORT_LEASE)
    user, _key = environment.add_user()
    [record] = environment.request(user, "k")
    asleep = environment.start_drain(FAULTS="after_claim=stop")
    environment.wait_for_point("after_claim")

    environment.drain_until({"sent": 1})
    os.kill(asleep.pid, signal.SIGCONT)

    assert asleep.wait(60) == 0
    assert environment.sends() == {record: 1}
    environment.assert_promise()


def test_fault_25_execute_and_timeout(environment: FaultEnvironment) -> None:
    environment.env.update(SHORT_LEASE)
    user, _key = environment.add_user()
    records = environment.request(user, *(f"k{number}" for number in range(200)))

    environment.start_driver(FAULTS="after_claim=raise/20,after_settle=raise/3")

    environment.wait_for_status("sent", len(records))
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_fault_29_poison(environment: FaultEnvironment) -> None:
    environment.env.update(SHORT_LEASE, NOTIFICATIONS_MAX_ATTEMPTS="3", NOTIFICATIONS_HELD_KEY_DELAY="0.2")
    user, _key = environment.add_user()
    records = environment.request(user, *(f"k{number}" for number in range(100)))
    poison = records[40]
    environment.rows("UPDATE notification_records SET trace_id = 'poison' WHERE id = %s", poison)

    environment.drain_until({"sent": 99, "dead": 1}, FAULTS="before_send=kill@poison")

    assert environment.rows("SELECT id, last_error_code FROM notification_records WHERE status = 'dead'") == [
        (poison, "lease_expired")
    ]
    assert environment.sends().keys() == set(records) - {poison}
    environment.assert_promise()


def test_fault_31_fd_exhaustion(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user("slow:0.2")
    records = environment.request(user, *(f"k{number}" for number in range(60)))
    environment.processes.entries["starved"] = "sh -c 'ulimit -n 24; exec python manage.py deliver_due --limit 60'"

    environment.start("starved").wait(60)
    environment.retries_are_due()
    environment.leases_run_out()
    environment.locks_run_out()
    environment.drain_until({"sent": len(records)})

    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()


def test_fault_36_deploy_mixed(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user("slow:0.05")
    environment.start_driver()
    before = environment.request(user, *(f"before-{number}" for number in range(100)))

    # A migration of a later version may add columns, tables and channels while this version runs.
    environment.rows("ALTER TABLE notification_records ADD COLUMN colour smallint NOT NULL DEFAULT 0")
    environment.rows("CREATE TABLE notification_later (id bigint)")
    environment.start_driver()
    after = environment.request(user, *(f"after-{number}" for number in range(100)))
    [unknown] = environment.request(user, "unknown channel")
    environment.rows(
        "UPDATE notification_records SET channel = 'carrier-pigeon' WHERE id = %s AND status = 'pending'", unknown
    )

    wait_until(lambda: environment.statuses().get("sent", 0) >= 200, "all records of known channels are sent")
    sends = environment.sends()
    assert {record: sends[record] for record in before + after} == dict.fromkeys(before + after, 1)
    unknown_channel = environment.rows(
        "SELECT status, attempt_count FROM notification_records WHERE channel = 'carrier-pigeon'"
    )
    assert unknown_channel in ([("pending", 0)], [])  # unchanged, unless it was sent before the update


def test_stopped_and_continued_worker_loses_nothing(environment: FaultEnvironment) -> None:
    user, _key = environment.add_user("slow:0.05")
    records = environment.request(user, *(f"k{number}" for number in range(200)))
    driver = environment.start_driver()
    wait_until(lambda: environment.statuses().get("sent", 0) > 20, "some are sent")

    with stopped(driver.pid):
        environment.drain()

    environment.wait_for_status("sent", len(records))
    assert environment.sends() == dict.fromkeys(records, 1)
    environment.assert_promise()
