"""The soak's arithmetic: what it counts as lost, stuck, and doubled inside or outside the window."""

from __future__ import annotations

from typing import Any

from dev.chaos.evaluation import Observations, judge
from dev.chaos.faults import Event
from dev.faults.tracing import HEADER
from notifications.testing.sandbox.journal import Delivery

SENDER, OTHER, DRIVER = 11, 22, 33


def delivery(at: float, sender: int = SENDER, record: int = 1) -> Delivery:
    headers = {HEADER: str(sender)}
    return Delivery(at=at, key="k", notification_id=record, answer="ok", accepted=True, body=None, headers=headers)


def observations(**changes: Any) -> Observations:
    known: dict[str, Any] = {
        "promised": {"a"},
        "undone": set(),
        "users": {7: "ok"},
        "records": [(1, "a", "sent", 7)],
        "attempts": [],
        "deliveries": [delivery(100.0)],
        "events": [],
        "drivers": {DRIVER},
    }
    return Observations(**(known | changes))


def test_one_delivery_of_a_sent_record_breaks_no_promise() -> None:
    result = judge(observations())

    assert (result.requested, result.delivered) == (1, 1)
    assert result.violations == []


def test_each_broken_promise_is_counted_once() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"promised": {"a", "gone"}}, "lost"),
        ({"deliveries": []}, "lost"),
        ({"records": [(1, "a", "dead", 7)]}, "lost"),
        ({"records": [(1, "a", "sending", 7)]}, "stuck"),
        ({"undone": {"a"}}, "unrequested"),
        ({"deliveries": [delivery(100.0), delivery(100.0, record=2)]}, "unrequested"),
        ({"deliveries": [delivery(100.0), delivery(105.0, OTHER)]}, "duplicates_outside_window"),
    ]

    for changes, counter in cases:
        result = judge(observations(**changes))
        assert getattr(result, counter) == 1, (changes, counter)
        assert len(result.violations) == 1, (changes, counter)


def test_a_duplicate_is_inside_the_window_only_if_a_fault_of_its_senders_explains_it() -> None:
    cases = [
        (Event("kill", 100.2, 100.2, {SENDER}), delivery(109.0, OTHER), True),
        (Event("kill", 100.2, 100.2, {OTHER}), delivery(109.0, OTHER), False),
        (Event("kill", 110.0, 110.0, {SENDER}), delivery(109.0, OTHER), False),
        (Event("long-stop", 99.0, 111.0, {SENDER}), delivery(109.0, OTHER), True),
        (Event("short-stop", 99.9, 104.9, {SENDER}), delivery(104.2, OTHER), False),
        (Event("short-stop", 99.9, 104.9, {SENDER}), delivery(104.2, DRIVER), True),
        (Event("short-stop", 95.9, 100.5, {DRIVER}), delivery(100.6, DRIVER), True),
        (Event("short-stop", 95.9, 100.5, {OTHER}), delivery(100.6, OTHER), False),
        (Event("short-stop", 95.9, 99.0, {DRIVER}), delivery(100.6, DRIVER), False),
        (Event("database-crash", 100.1, 103.0), delivery(104.2, OTHER), False),
        (Event("database-crash", 100.1, 108.0), delivery(109.0, OTHER), True),
        (Event("receiver", 100.1, 103.0), delivery(104.2, OTHER), False),
    ]

    for event, second, inside in cases:
        result = judge(observations(deliveries=[delivery(100.0), second], events=[event]))
        counts = (result.duplicates_in_window, result.duplicates_outside_window)
        assert counts == (int(inside), int(not inside)), (event, second)


def test_a_lock_lost_with_redis_explains_a_duplicate_after_a_short_stop() -> None:
    events = [Event("short-stop", 99.9, 104.9, {SENDER}), Event("redis-kill", 101.0, 102.0)]

    result = judge(observations(deliveries=[delivery(100.0), delivery(104.2, OTHER)], events=events))

    assert result.duplicates_in_window == 1


def test_a_lost_response_explains_a_second_delivery() -> None:
    attempt = (1, "temporary_fail", "provider_timeout", f"host:{SENDER}", 99.9, 1.5)

    result = judge(observations(deliveries=[delivery(100.0), delivery(102.0, OTHER)], attempts=[attempt]))

    assert result.duplicates_in_window == 1
