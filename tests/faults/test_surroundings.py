"""Endpoints that misbehave, clocks that jump, and other endpoints that hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from dev.waiting import wait_until
from tests.support.fault_environment import FaultEnvironment

pytestmark = pytest.mark.acceptance
FAKETIME = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]

TASKS_SEEN = "SELECT name FROM notification_heartbeats WHERE kind = 'task'"

ANSWERS = {
    "ok": ("sent", ""),
    "garbage": ("sent", ""),
    "empty": ("sent", ""),
    "huge": ("sent", ""),
    "drip": ("failed", "provider_timeout"),
    "drip-body": ("failed", "provider_timeout"),
    "hold": ("failed", "provider_timeout"),
    "reset": ("failed", "network_error"),
    "redirect": ("dead", "payload_invalid"),
    "status:500": ("failed", "provider_5xx"),
    "status:401": ("failed", "provider_auth_failed"),
    "rate-limit:1": ("failed", "provider_rate_limited"),
    "code:11232": ("failed", "provider_rate_limited"),
    "code:99991400": ("failed", "provider_rate_limited"),
    "code:9499:too many request": ("failed", "provider_rate_limited"),
    "code:19021": ("failed", "provider_config"),
    "code:19001": ("failed", "provider_config"),
    "code:424242": ("failed", "provider_unmapped"),
}


def faked_clock() -> dict[str, str]:
    """Return the environment of a process whose clock is set by FAKETIME or FAKETIME_TIMESTAMP_FILE."""
    return {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}


def test_fault_28_receiver_faults(environment: FaultEnvironment) -> None:
    users = {answer: environment.add_user(answer)[0] for answer in ANSWERS}
    for answer, user in users.items():
        environment.request(user, answer)

    environment.drain_with(NOTIFICATIONS_RETRY_BASE_DELAY="300")

    rows = environment.rows("SELECT dedupe_key, status, last_error_code, attempt_count FROM notification_records")
    assert {key: (status, code) for key, status, code, _attempts in rows} == ANSWERS
    assert {attempts for *_rest, attempts in rows} == {1}  # each send slot was freed
    held_records = environment.rows("SELECT dedupe_key FROM notification_records WHERE wait_reason = 'channel_paused'")
    assert {key for (key,) in held_records} == {"code:19021", "code:19001", "status:401"}
    assert environment.where_secrets_are() == []


def test_fault_30_slow_endpoint_isolation(environment: FaultEnvironment) -> None:
    slow, key = environment.add_user("hold")
    other, _key = environment.add_user()
    held = environment.request(slow, *(f"slow-{number}" for number in range(10)))
    records = environment.request(other, *(f"k{number}" for number in range(300)))

    drain = environment.start_drain(NOTIFICATIONS_TOTAL_TIMEOUT="100", NOTIFICATIONS_READ_TIMEOUT="100")
    environment.wait_for_status("sent", len(records))

    # The endpoint that hangs blocks no other record.
    assert environment.statuses() == {"sent": len(records), "sending": len(held)}
    environment.sandbox.release(key)
    assert drain.wait(60) == 0
    assert environment.sends() == dict.fromkeys(held + records, 1)
    environment.assert_promise()


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
@pytest.mark.parametrize("jump", ["+7200", "-7200"])
def test_fault_27_clock_jump(environment: FaultEnvironment, jump: str) -> None:
    failing, _key = environment.add_user("status:503", "ok")
    [waiting] = environment.request(failing, "in backoff")
    environment.drain_with(NOTIFICATIONS_RETRY_BASE_DELAY="3600", NOTIFICATIONS_RETRY_MAX_DELAY="3600")
    user, key = environment.add_user("hold")
    [in_hand] = environment.request(user, "in flight")
    long = {"NOTIFICATIONS_TOTAL_TIMEOUT": "100", "NOTIFICATIONS_READ_TIMEOUT": "100"}
    sender = environment.start_drain(**long)
    environment.sandbox.wait_for(1, 60, key=key)
    other, _key = environment.add_user()
    [due] = environment.request(other, "due")

    environment.start_worker(FAKETIME=jump, **faked_clock())
    environment.run("from notifications.broker.nudge import nudge; nudge()")
    wait_until(lambda: due in environment.sends(), "the due record is sent, whatever the clock of the worker says")

    statuses = dict(environment.rows("SELECT id, status FROM notification_records"))
    assert statuses == {waiting: "failed", in_hand: "sending", due: "sent"}  # no early retry, no early recovery
    environment.sandbox.release()
    assert sender.wait(60) == 0
    environment.retries_are_due()
    environment.drain()
    assert environment.sends() == dict.fromkeys([waiting, in_hand, due], 1)
    environment.assert_promise()


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
@pytest.mark.parametrize("skew", ["-3600", "+20", "+3600"])
def test_fault_27_clocks_of_beat_and_worker_differ(environment: FaultEnvironment, skew: str) -> None:
    worker = environment.start_worker(FAKETIME=skew, **faked_clock())
    user, _key = environment.add_user("status:503", "ok")
    [record] = environment.request(user, "k")
    environment.start("beat")

    environment.wait_for_status("sent", 1)  # by a sweep
    wait_until(
        lambda: (
            {f"task:notifications.{name}" for name in ("deliver_due", "watch", "run_replays", "run_due_jobs")}
            <= {name for (name,) in environment.rows(TASKS_SEEN)}
        ),
        "every message of beat is handled",
    )
    assert environment.sends() == {record: 1}
    assert [text for text in ("revoked", "beat is silent") if text in worker.log] == []
    environment.assert_promise()


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
def test_fault_27_workers_sweep_when_the_clock_of_beat_is_set_back(
    environment: FaultEnvironment, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    worker = environment.start_worker()
    environment.start("beat", FAKETIME_TIMESTAMP_FILE=str(clock), **faked_clock())
    wait_until(lambda: environment.rows(TASKS_SEEN), "beat runs")

    clock.write_text("-3600")
    wait_until(lambda: "beat is silent" in worker.log, "a worker takes over")
    user, _key = environment.add_user("status:503", "ok")
    [record] = environment.request(user, "k")

    environment.wait_for_status("sent", 1)
    assert environment.sends() == {record: 1}
    environment.assert_promise()
