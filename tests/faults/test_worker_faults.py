"""Workers that are killed, stopped or short of resources at every step of a delivery."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.fault_environment import FaultSite, stopped, wait_until

pytestmark = pytest.mark.acceptance
SHORT_LEASE = {"NOTIFICATIONS_LEASE": "4"}


def test_fault_01_kill_before_claim(site: FaultSite) -> None:
    worker = site.start_worker(FAULTS="received=kill")
    user, _key = site.add_user()
    [record] = site.request(user, "k")
    worker.wait(60)

    site.start_worker()
    site.start("beat")

    site.wait_for_status("sent", 1)
    assert site.sends() == {record: 1}
    assert site.attempts("number", "cause", "outcome") == [(1, "event", "success")]
    site.assert_promise()


def test_fault_02_kill_after_claim(site: FaultSite) -> None:
    user, _key = site.add_user()
    [record] = site.request(user, "k")
    assert site.drain_with(FAULTS="after_claim=kill").returncode == -signal.SIGKILL

    site.drain()
    assert site.sends() == {}  # its lease has not ended
    site.leases_run_out()
    site.drain()

    assert site.sends() == {record: 1}
    assert site.attempts("number", "cause", "outcome") == [(1, "event", "lost"), (2, "recovery", "success")]
    site.assert_promise()


def test_fault_03_kill_after_http(site: FaultSite) -> None:
    user, _key = site.add_user()
    [record] = site.request(user, "k")
    assert site.drain_with(FAULTS="after_send=kill").returncode == -signal.SIGKILL

    site.drain()
    site.leases_run_out()
    site.drain()
    assert site.sends() == {record: 1}  # its lock has not ended
    site.locks_run_out()
    site.drain_until({"sent": 1})

    assert site.sends() == {record: 2}  # nobody can know that the first message arrived
    assert site.attempts("number", "outcome") == [(1, "lost"), (2, "success")]
    site.assert_promise()


def test_fault_03_kill_after_settle(site: FaultSite) -> None:
    user, _key = site.add_user()
    [record] = site.request(user, "k")

    assert site.drain_with(FAULTS="after_settle=kill").returncode == -signal.SIGKILL
    site.locks_run_out()
    site.drain()

    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_04_kill_storm(site: FaultSite) -> None:
    site.env.update(SHORT_LEASE)
    user, _key = site.add_user("slow:0.05")
    drivers = [site.start_driver(), site.start_driver()]
    records: list[int] = []

    for kill in range(10):
        sent = site.statuses().get("sent", 0)
        records += site.request(user, *(f"{kill}-{number}" for number in range(200)))
        wait_until(lambda sent=sent: site.statuses().get("sent", 0) > sent, "some are sent")  # type: ignore[misc]
        drivers.pop(0).kill()
        drivers.append(site.start_driver())

    site.wait_for_status("sent", len(records))
    assert site.sends().keys() == set(records)
    site.assert_promise()


def test_fault_05_term_storm(site: FaultSite) -> None:
    user, _key = site.add_user("slow:0.05")
    records = site.request(user, *(f"k{number}" for number in range(400)))
    workers = [site.start_worker()]

    while site.statuses().get("sent", 0) < len(records):
        sent = site.statuses().get("sent", 0)
        site.run("from notifications.broker.nudge import nudge; nudge()")
        wait_until(lambda sent=sent: site.statuses().get("sent", 0) > sent, "some are sent")  # type: ignore[misc]
        workers.append(site.start_worker())
        assert workers.pop(0).terminate(40) == 0
        assert "sending" not in site.statuses() or workers  # the next worker may have claimed already

    assert site.sends() == dict.fromkeys(records, 1)
    assert site.attempts("outcome") == [("success",)] * len(records)
    site.assert_promise()


def test_fault_05_stopped_worker_leaves_nothing_in_sending(site: FaultSite) -> None:
    worker = site.start_worker(FAULTS="after_send=hold")
    user, _key = site.add_user()
    records = site.request(user, *(f"k{number}" for number in range(100)))
    site.wait_for_point("after_send")

    worker.ask_to_end()
    wait_until(lambda: "Warm shutdown" in worker.log, "the worker logs its warm shutdown")
    site.let_go("after_send")

    assert worker.wait(60) == 0
    assert "sending" not in site.statuses()
    site.drain()
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


def test_fault_18_lock_expires_while_its_holder_sends(site: FaultSite) -> None:
    user, key = site.add_user("hold")
    [record] = site.request(user, "k")
    first = site.start_drain(NOTIFICATIONS_TOTAL_TIMEOUT="60", NOTIFICATIONS_READ_TIMEOUT="60")
    site.sandbox.wait_for(1, 60, key=key)

    site.locks_run_out()
    site.drain()
    site.sandbox.release()

    assert first.wait(60) == 0
    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_20_stale_failure_changes_nothing(site: FaultSite) -> None:
    user, _key = site.add_user("status:500", "ok")
    [record] = site.request(user, "k")
    stale = site.start_drain(FAULTS="after_send=stop")
    site.wait_for_point("after_send")

    site.leases_run_out()
    site.locks_run_out()
    site.drain()
    os.kill(stale.pid, signal.SIGCONT)

    assert stale.wait(60) == 0
    assert site.statuses() == {"sent": 1}
    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_20_stale_success_stops_further_sends(site: FaultSite) -> None:
    user, _key = site.add_user("ok", "status:500")
    [record] = site.request(user, "k")
    stale = site.start_drain(FAULTS="after_send=stop")
    site.wait_for_point("after_send")

    site.leases_run_out()
    site.locks_run_out()
    site.drain()
    assert site.statuses() == {"failed": 1}
    os.kill(stale.pid, signal.SIGCONT)

    assert stale.wait(60) == 0
    assert site.statuses() == {"sent": 1}
    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_20_record_of_a_stopped_worker_that_holds_its_key_is_not_sent_again(site: FaultSite) -> None:
    user, _key = site.add_user()
    [record] = site.request(user, "k")
    stalled = site.start_drain(FAULTS="after_send=stop")
    site.wait_for_point("after_send")

    site.leases_run_out()
    site.drain()
    os.kill(stalled.pid, signal.SIGCONT)

    assert stalled.wait(60) == 0
    assert site.sends() == {record: 1}
    assert site.attempts("number", "outcome") == [(1, "success")]
    site.assert_promise()


def test_fault_20_worker_stopped_past_its_lease_sends_nothing(site: FaultSite) -> None:
    site.env.update(SHORT_LEASE)
    user, _key = site.add_user()
    [record] = site.request(user, "k")
    asleep = site.start_drain(FAULTS="after_claim=stop")
    site.wait_for_point("after_claim")

    site.drain_until({"sent": 1})
    os.kill(asleep.pid, signal.SIGCONT)

    assert asleep.wait(60) == 0
    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_25_execute_and_timeout(site: FaultSite) -> None:
    site.env.update(SHORT_LEASE)
    user, _key = site.add_user()
    records = site.request(user, *(f"k{number}" for number in range(200)))

    site.start_driver(FAULTS="after_claim=raise/20,after_settle=raise/3")

    site.wait_for_status("sent", len(records))
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


def test_fault_29_poison(site: FaultSite) -> None:
    site.env.update(SHORT_LEASE, NOTIFICATIONS_MAX_ATTEMPTS="3", NOTIFICATIONS_HELD_KEY_DELAY="0.2")
    user, _key = site.add_user()
    records = site.request(user, *(f"k{number}" for number in range(100)))
    poison = records[40]
    site.execute("UPDATE notification_records SET trace_id = 'poison' WHERE id = %s", poison)

    site.drain_until({"sent": 99, "dead": 1}, FAULTS="before_send=kill@poison")

    assert site.rows("SELECT id, last_error_code FROM notification_records WHERE status = 'dead'") == [
        (poison, "lease_expired")
    ]
    assert site.sends().keys() == set(records) - {poison}
    site.assert_promise()


def test_fault_31_fd_exhaustion(site: FaultSite) -> None:
    user, _key = site.add_user("slow:0.2")
    records = site.request(user, *(f"k{number}" for number in range(60)))
    site.processes.entries["starved"] = "sh -c 'ulimit -n 24; exec python manage.py deliver_due --limit 60'"

    site.start("starved").wait(60)
    site.retries_are_due()
    site.leases_run_out()
    site.locks_run_out()
    site.drain_until({"sent": len(records)})

    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()


def test_fault_36_deploy_mixed(site: FaultSite) -> None:
    user, _key = site.add_user("slow:0.05")
    site.start_driver()
    before = site.request(user, *(f"before-{number}" for number in range(100)))

    # A migration of a later version may add columns, tables and channels while this version runs.
    site.execute("ALTER TABLE notification_records ADD COLUMN priority smallint NOT NULL DEFAULT 0")
    site.execute("CREATE TABLE notification_later (id bigint)")
    site.start_driver()
    after = site.request(user, *(f"after-{number}" for number in range(100)))
    [unknown] = site.request(user, "unknown channel")
    site.execute(
        "UPDATE notification_records SET channel = 'carrier-pigeon' WHERE id = %s AND status = 'pending'", unknown
    )

    wait_until(lambda: site.statuses().get("sent", 0) >= 200, "all records of known channels are sent")
    sends = site.sends()
    assert {record: sends[record] for record in before + after} == dict.fromkeys(before + after, 1)
    unknown_channel = site.rows(
        "SELECT status, attempt_count FROM notification_records WHERE channel = 'carrier-pigeon'"
    )
    assert unknown_channel in ([("pending", 0)], [])  # unchanged, unless it was sent before the update


def test_stopped_and_continued_worker_loses_nothing(site: FaultSite) -> None:
    user, _key = site.add_user("slow:0.05")
    records = site.request(user, *(f"k{number}" for number in range(200)))
    driver = site.start_driver()
    wait_until(lambda: site.statuses().get("sent", 0) > 20, "some are sent")

    with stopped(driver.pid):
        site.drain()

    site.wait_for_status("sent", len(records))
    assert site.sends() == dict.fromkeys(records, 1)
    site.assert_promise()
