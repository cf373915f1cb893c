"""The protocol keeps its promises in every reachable state, and each guard is necessary."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis.stateful import run_state_machine_as_test

from notifications.conf import service_options
from notifications.delivery.locks import lock_ttl
from tests.model.explorer import LATE_FAILURE, SENT_CHANGED, SENT_TWICE, TOO_MANY_ATTEMPTS, BrokenPromise, explore
from tests.model.machine import WIDE, ProtocolMachine, runs
from tests.model.world import Rules
from tests.support.depth import FAST, PART

VIEWS = {
    "crashes": (Rules(max_attempts=3, crashes=2, redis_faults=0, replays=0), 50_000),
    "a Redis fault": (Rules(max_attempts=3, crashes=0, redis_faults=1, replays=0), 125_000),
    "a crash and a Redis fault": (Rules(max_attempts=2, crashes=1, redis_faults=1, replays=0), 125_000),
    "a crash and a replay": (Rules(max_attempts=2, crashes=1, redis_faults=0, replays=1), 100_000),
    "everything, with one attempt": (Rules(max_attempts=1, crashes=1, redis_faults=1, replays=1), 160_000),
    "three workers": (Rules(workers=3, max_attempts=2, crashes=0, redis_faults=0, replays=0), 170_000),
}
"""Bounds, and the least_states number of states within them. The product of all bounds has too many states to visit."""

NO_FAULTS = Rules(max_attempts=3, replays=0, crashes=0, redis_faults=0)


def shortest_trace_to_a_second_send(rules: Rules) -> list[str]:
    """Return the shortest trace. Print it, so that pytest shows it when a test fails."""
    with pytest.raises(BrokenPromise) as broken:
        explore(rules, SENT_TWICE)
    print(broken.value)  # noqa: T201
    return [str(step) for step in broken.value.trace]


@pytest.mark.parametrize("view", VIEWS)
def test_every_promise_holds_in_every_state(view: str) -> None:
    rules, least_states = VIEWS[view]

    explored = explore(rules, at_most=least_states // PART if FAST else None)

    assert explored.states >= least_states // PART


def test_every_promise_holds_in_long_random_runs() -> None:
    run_state_machine_as_test(ProtocolMachine, settings=runs(100 // PART, 120))


def test_late_failure_causes_a_second_send_without_the_fence() -> None:
    trace = shortest_trace_to_a_second_send(replace(NO_FAULTS, fenced=False))

    assert trace == [
        "worker A claims the row",
        "worker A takes the lock of its claim",
        "worker A begins to send",
        "the receiver accepts the message of worker A, and the answer is lost",
        "the lease of worker A ends",
        "the lock of worker A ends",
        "worker B claims the row",
        "worker B takes the lock of its claim",
        "worker B finds the lock of the former claim gone",
        "worker B finds its claim still valid and records the lost attempt",
        "worker A settles its failure",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
        "the row becomes due",
        "worker A claims the row",
        "worker A takes the lock of its claim",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
    ]


def test_send_that_outlives_its_lease_is_repeated_without_the_lock() -> None:
    trace = shortest_trace_to_a_second_send(replace(NO_FAULTS, locked=False))

    assert trace == [
        "worker A claims the row",
        "worker A continues without a lock, because locks are switched off",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
        "the lease of worker A ends",
        "worker B claims the row",
        "worker B continues without a lock, because locks are switched off",
        "worker B finds its claim still valid and records the lost attempt",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
    ]


def test_two_workers_take_the_same_row_without_an_atomic_claim() -> None:
    trace = shortest_trace_to_a_second_send(replace(NO_FAULTS, claim_is_atomic=False))

    assert trace == [
        "worker A sees that the row is due",
        "worker B sees that the row is due",
        "worker A claims the row",
        "worker A takes the lock of its claim",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
        "worker B claims the row",
        "worker B takes the lock of its claim",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
    ]


def test_send_of_a_slow_worker_is_repeated_without_the_second_check() -> None:
    trace = shortest_trace_to_a_second_send(replace(NO_FAULTS, rechecked=False))

    assert trace == [
        "worker A claims the row",
        "worker A takes the lock of its claim",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
        "the lease of worker A ends",
        "worker B claims the row",
        "worker A settles its success",
        "worker B takes the lock of its claim",
        "the locks of former workers end",
        "worker B finds the lock of the former claim gone",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
    ]


def test_send_is_repeated_if_a_lock_lasts_longer_than_the_next_lease() -> None:
    trace = shortest_trace_to_a_second_send(replace(NO_FAULTS, crashes=1, locks_are_short=False))

    assert trace == [
        "worker A claims the row",
        "worker A takes the lock of its claim",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
        "the lease of worker A ends",
        "worker B claims the row",
        "the lease of worker B ends",
        "worker B crashes",
        "worker B claims the row",
        "worker B takes the lock of its claim",
        "worker B finds the lock of the former claim gone",
        "worker B finds its claim still valid and records the lost attempt",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
    ]


def test_lock_lasts_at_most_twice_as_long_as_its_lease() -> None:
    for lease in (0.5, 1, 5, 60, 3600):
        options = replace(service_options(), lease=lease)

        assert lease < lock_ttl(options) <= 2 * lease


@pytest.mark.parametrize(
    ("without", "promise"),
    [
        ("fenced", LATE_FAILURE),
        ("claim_is_atomic", SENT_CHANGED),
        ("claim_is_atomic", TOO_MANY_ATTEMPTS),
        ("locked", SENT_TWICE),
    ],
)
def test_every_promise_can_be_broken(without: str, promise: str) -> None:
    with pytest.raises(BrokenPromise, match=promise):
        explore(replace(NO_FAULTS, **{without: False}), promise)


@pytest.mark.parametrize(
    ("without", "promises"),
    [("fenced", {LATE_FAILURE}), ("claim_is_atomic", {SENT_CHANGED, SENT_TWICE, TOO_MANY_ATTEMPTS})],
)
def test_random_runs_find_a_missing_guard(without: str, promises: set[str]) -> None:
    class Unguarded(ProtocolMachine):
        guards = replace(WIDE, **{without: False})

    with pytest.raises(BrokenPromise) as broken:
        run_state_machine_as_test(Unguarded, settings=runs(500, 100, shrink=False))

    assert broken.value.promise in promises
