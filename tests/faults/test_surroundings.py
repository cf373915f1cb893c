"""Endpoints that misbehave, clocks that jump, and other endpoints that hang."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fault_environment import FaultSite, wait_until

pytestmark = pytest.mark.acceptance
FAKETIME = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]

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
    "status:401": ("dead", "provider_auth_failed"),
    "rate-limit:1": ("failed", "provider_rate_limited"),
    "code:11232": ("failed", "provider_rate_limited"),
    "code:99991400": ("failed", "provider_rate_limited"),
    "code:9499:too many request": ("failed", "provider_rate_limited"),
    "code:19021": ("failed", "provider_config"),
    "code:19001": ("failed", "provider_config"),
    "code:424242": ("failed", "provider_unmapped"),
}


def test_fault_28_receiver_faults(site: FaultSite) -> None:
    users = {answer: site.add_user(answer)[0] for answer in ANSWERS}
    for answer, user in users.items():
        site.request(user, answer)

    site.drain_with(NOTIFICATIONS_RETRY_BASE_DELAY="300")

    rows = site.rows("SELECT dedupe_key, status, last_error_code, attempt_count FROM notification_records")
    assert {key: (status, code) for key, status, code, _attempts in rows} == ANSWERS
    assert {attempts for *_rest, attempts in rows} == {1}  # each send slot was freed
    held_records = site.rows("SELECT dedupe_key FROM notification_records WHERE wait_reason = 'channel_paused'")
    assert {key for (key,) in held_records} == {"code:19021", "code:19001"}
    assert site.where_secrets_are() == []


def test_fault_30_slow_endpoint_isolation(site: FaultSite) -> None:
    slow, key = site.add_user("hold")
    other, _key = site.add_user()
    held = site.request(slow, *(f"slow-{number}" for number in range(10)))
    records = site.request(other, *(f"k{number}" for number in range(300)))

    drain = site.start_drain(NOTIFICATIONS_TOTAL_TIMEOUT="100", NOTIFICATIONS_READ_TIMEOUT="100")
    site.wait_for_status("sent", len(records))

    assert site.statuses() == {"sent": len(records), "sending": len(held)}  # the hanging ones block no other record
    site.sandbox.release(key)
    assert drain.wait(60) == 0
    assert site.sends() == dict.fromkeys(held + records, 1)
    site.assert_promise()


@pytest.mark.skipif(not FAKETIME, reason="libfaketime is not installed")
@pytest.mark.parametrize("jump", ["+7200", "-7200"])
def test_fault_27_clock_jump(site: FaultSite, jump: str) -> None:
    clock = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": jump, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    failing, _key = site.add_user("status:503", "ok")
    [waiting] = site.request(failing, "in backoff")
    site.drain_with(NOTIFICATIONS_RETRY_BASE_DELAY="3600", NOTIFICATIONS_RETRY_MAX_DELAY="3600")
    user, key = site.add_user("hold")
    [in_hand] = site.request(user, "in flight")
    long = {"NOTIFICATIONS_TOTAL_TIMEOUT": "100", "NOTIFICATIONS_READ_TIMEOUT": "100"}
    sender = site.start_drain(**long)
    site.sandbox.wait_for(1, 60, key=key)
    other, _key = site.add_user()
    [due] = site.request(other, "due")

    site.start_worker(**clock)
    site.run("from notifications.broker.nudge import nudge; nudge()")
    wait_until(lambda: due in site.sends(), "the due record is sent, whatever the clock of the worker says")

    statuses = dict(site.rows("SELECT id, status FROM notification_records"))
    assert statuses == {waiting: "failed", in_hand: "sending", due: "sent"}  # no early retry, no early recovery
    site.sandbox.release()
    assert sender.wait(60) == 0
    site.retries_are_due()
    site.drain()
    assert site.sends() == dict.fromkeys([waiting, in_hand, due], 1)
    site.assert_promise()
