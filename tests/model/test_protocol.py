"""The protocol keeps its promises in every world it can get into, and each guard is needed for that."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.explorer import LATE_FAILURE, SENT_LEFT, SENT_TWICE, TOO_MANY, BrokenPromise, explore
from tests.model.machine import WIDE, ProtocolMachine, runs
from tests.model.world import Rules

VIEWS = {
    "crashes": (Rules(max_attempts=3, crashes=2, redis_faults=0, replays=0), 30_000),
    "a Redis that fails": (Rules(max_attempts=3, crashes=0, redis_faults=1, replays=0), 70_000),
    "a crash and a Redis that fails": (Rules(max_attempts=2, crashes=1, redis_faults=1, replays=0), 70_000),
    "a crash and a replay": (Rules(max_attempts=2, crashes=1, redis_faults=0, replays=1), 50_000),
    "everything, with one attempt": (Rules(max_attempts=1, crashes=1, redis_faults=1, replays=1), 100_000),
    "three workers": (Rules(workers=3, max_attempts=2, crashes=0, redis_faults=0, replays=0), 70_000),
}
"""Bounds, and how many worlds there are at least within them: all at once would be too many to visit."""

BARE = Rules(max_attempts=3, replays=0, crashes=0, redis_faults=0)


def shortest_way_to_send_twice(rules: Rules) -> list[str]:
    """Return the shortest trace, for people; pytest shows it when a test fails."""
    with pytest.raises(BrokenPromise) as broken:
        explore(rules, SENT_TWICE)
    print(broken.value)  # noqa: T201
    return [str(step) for step in broken.value.trace]


@pytest.mark.parametrize("view", VIEWS)
def test_every_promise_holds_in_every_world(view: str) -> None:
    rules, least = VIEWS[view]

    explored = explore(rules)

    assert explored.states >= least


def test_every_promise_holds_in_long_random_runs() -> None:
    run_state_machine_as_test(ProtocolMachine, settings=runs(100, 120))


def test_without_the_fence_a_late_failure_makes_a_second_send() -> None:
    trace = shortest_way_to_send_twice(replace(BARE, fenced=False))

    assert trace == [
        "worker A claims the row",
        "worker A takes the lock",
        "worker A begins to send",
        "the receiver accepts the message of worker A, and the answer is lost",
        "the lease of worker A runs out",
        "the lock of worker A runs out",
        "worker B claims the row",
        "worker B takes the lock",
        "worker B finds its claim still good and notes the lost attempt",
        "worker A settles its failure",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
        "the row becomes due",
        "worker A claims the row",
        "worker B settles its success",
        "worker B gives back the lock",
        "worker A takes the lock",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
    ]


def test_without_the_lock_a_worker_that_outlives_its_lease_is_repeated() -> None:
    trace = shortest_way_to_send_twice(replace(BARE, locked=False))

    assert trace == [
        "worker A claims the row",
        "worker A goes on, as locks are switched off",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
        "the lease of worker A runs out",
        "worker B claims the row",
        "worker B goes on, as locks are switched off",
        "worker B finds its claim still good and notes the lost attempt",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
    ]


def test_without_an_atomic_claim_two_workers_take_the_same_row() -> None:
    trace = shortest_way_to_send_twice(replace(BARE, claim_is_atomic=False))

    assert trace == [
        "worker A sees that the row is due",
        "worker B sees that the row is due",
        "worker A claims the row",
        "worker A takes the lock",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
        "worker A settles its success",
        "worker A gives back the lock",
        "worker B claims the row",
        "worker B takes the lock",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
    ]


def test_without_a_second_look_under_the_lock_a_worker_that_was_only_late_is_repeated() -> None:
    trace = shortest_way_to_send_twice(replace(BARE, rechecked=False))

    assert trace == [
        "worker A claims the row",
        "worker A takes the lock",
        "worker A begins to send",
        "the receiver accepts the message of worker A",
        "the lease of worker A runs out",
        "worker B claims the row",
        "worker A settles its success",
        "worker A gives back the lock",
        "worker B takes the lock",
        "worker B begins to send",
        "the receiver accepts the message of worker B",
    ]


@pytest.mark.parametrize(
    ("without", "promise"),
    [("fenced", LATE_FAILURE), ("claim_is_atomic", SENT_LEFT), ("claim_is_atomic", TOO_MANY), ("locked", SENT_TWICE)],
)
def test_every_promise_can_be_broken(without: str, promise: str) -> None:
    with pytest.raises(BrokenPromise, match=promise):
        explore(replace(BARE, **{without: False}), promise)


@pytest.mark.parametrize(
    ("without", "promises"),
    [("fenced", {LATE_FAILURE}), ("claim_is_atomic", {SENT_LEFT, SENT_TWICE, TOO_MANY})],
)
def test_random_runs_find_a_missing_guard_too(without: str, promises: set[str]) -> None:
    class Unguarded(ProtocolMachine):
        guards = replace(WIDE, **{without: False})

    with pytest.raises(BrokenPromise) as broken:
        run_state_machine_as_test(Unguarded, settings=runs(500, 100, shrink=False))

    assert broken.value.promise in promises
