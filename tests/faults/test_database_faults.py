"""PostgreSQL restarts, crashes, loses connections or does not answer, alone and together with Redis."""

from __future__ import annotations

import pytest

from tests.support.fault_environment import FaultSite, payload, wait_until

pytestmark = pytest.mark.acceptance
SHORT_LEASE = {"NOTIFICATIONS_LEASE": "4"}


def test_fault_09_commit_reply_lost(site: FaultSite) -> None:
    proxy, env = site.proxy("DATABASE_URL")
    user, _key = site.add_user()
    proxy.lose_reply_to(b"COMMIT")

    with pytest.raises(AssertionError, match="OperationalError"):  # the caller does not know whether it was committed
        site.request(user, "k", **env)
    [record] = site.request(user, "k")  # so the caller requests it again
    site.drain()

    assert proxy.lost_replies == 1
    assert site.statuses() == {"sent": 1}
    assert site.sends() == {record: 1}
    site.assert_promise()


def test_fault_21_pg_kill_backends(site: FaultSite) -> None:
    site.env.update(SHORT_LEASE)
    worker = site.start_worker()
    site.start("beat")
    user, _key = site.add_user("slow:0.05")
    records = site.request(user, *(f"k{number}" for number in range(300)))
    others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

    for _ in range(8):
        sent = site.statuses().get("sent", 0)
        site.rows(f"SELECT pg_terminate_backend(pid) FROM ({others}) AS backend")
        wait_until(lambda sent=sent: site.statuses().get("sent", 0) >= min(sent + 10, 300), "more are sent")  # type: ignore[misc]

    site.wait_for_status("sent", len(records))
    assert site.sends() == dict.fromkeys(records, 1)
    worker.terminate(40)
    wait_until(lambda: len(site.rows(others)) <= 1, "no connection is left open")  # beat has none
    site.assert_promise()


def test_fault_22_pg_immediate_stop(own_site: FaultSite) -> None:
    site = own_site
    assert site.postgres
    user, _key = site.add_user()
    records = site.request(user, *(f"k{number}" for number in range(20)))
    drain = site.start_drain(FAULTS="before_settle=hold")
    site.wait_for_point("before_settle")

    site.postgres.crash()
    site.let_go("before_settle")
    with pytest.raises(AssertionError, match="OperationalError"):
        site.request(records[0], "fails")
    site.postgres.start()

    assert drain.wait(60) == 0
    assert site.statuses() == {"sent": len(records)}
    assert site.sends() == dict.fromkeys(records, 1)  # the results in memory were kept
    site.assert_promise()


def test_fault_22_nothing_is_sent_while_postgresql_is_away(own_site: FaultSite) -> None:
    site = own_site
    assert site.postgres
    worker = site.start_worker()
    beat = site.start("beat")
    user, _key = site.add_user()
    site.request(user, "before")
    site.wait_for_status("sent", 1)

    site.postgres.crash()
    wait_until(lambda: "OperationalError" in worker.log, "a sweep failed")
    assert len(site.sandbox.deliveries()) == 1
    site.postgres.start()
    [record] = site.request(user, "after")

    site.wait_for_status("sent", 2)
    assert site.sends()[record] == 1
    assert worker.alive
    assert beat.alive
    site.assert_promise()


def test_fault_23_pg_half_open(site: FaultSite) -> None:
    site.env.update(SHORT_LEASE, DATABASE_TIMEOUT="1")
    proxy, env = site.proxy("DATABASE_URL")
    user, _key = site.add_user("slow:0.05")
    worker = site.start_worker(**env)
    site.start("beat")
    records = site.request(user, *(f"k{number}" for number in range(100)))
    wait_until(lambda: site.statuses().get("sent", 0) > 5, "some are sent")

    proxy.mode = "silent"
    wait_until(
        lambda: "did not answer in time" in worker.log or "settle.delayed" in worker.log,
        "the worker logs the timeout or settle.delayed",
    )
    proxy.mode = "pass"
    proxy.reset_all()

    site.wait_for_status("sent", len(records))
    assert worker.alive
    assert site.sends().keys() == set(records)
    site.assert_promise()


def test_fault_24_both_down(own_site: FaultSite) -> None:
    site = own_site
    assert site.postgres
    # The leases end by themselves. A test that ended them would do so while the worker still sends.
    worker = site.start_worker(NOTIFICATIONS_LEASE="15")
    beat = site.start("beat")
    user, _key = site.add_user("slow:0.05")
    records = site.request(user, *(f"k{number}" for number in range(100)))

    site.valkey.kill()
    site.postgres.crash()
    with pytest.raises(AssertionError, match="OperationalError"):
        site.request(user, "refused")
    wait_until(
        lambda: "Connection to broker lost" in worker.log or "Error 111" in worker.log,
        "the worker logs the lost broker or database",
    )
    site.postgres.start()
    site.valkey.start()
    records += site.request(user, "after")

    site.wait_for_status("sent", len(records))
    assert site.sends().keys() == set(records)
    assert worker.alive
    assert beat.alive
    site.assert_promise()


def test_event_during_a_postgresql_outage_is_delivered_afterwards(own_site: FaultSite) -> None:
    site = own_site
    assert site.postgres
    worker = site.start_worker()
    user, _key = site.add_user()
    site.postgres.crash()

    site.send_event(payload(user, "k"))
    wait_until(lambda: "event.put_back" in worker.log, "the worker logs event.put_back")
    site.postgres.start()

    site.wait_for_status("sent", 1)
    assert list(site.sends().values()) == [1]
    site.assert_promise()
