"""The real claim, lock, settle, release, replay and cancel do what the model does, step by step.

Therefore the proofs of the model hold for them. They run on real PostgreSQL and Valkey. The test moves the clock.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from hypothesis.stateful import run_state_machine_as_test

from tests.model.explorer import Explorer, as_text
from tests.model.machine import WIDE, ProtocolMachine, runs
from tests.model.protocol import start, successors
from tests.model.real import RealRecord
from tests.model.world import Kind, Rules, State, Step

pytestmark = pytest.mark.django_db

VIEWS = [
    Rules(max_attempts=2, crashes=0, redis_faults=0, replays=1),
    Rules(max_attempts=2, crashes=1, redis_faults=0, replays=0),
    Rules(max_attempts=2, crashes=0, redis_faults=1, replays=0),
]
SWITCHED_OFF = {Kind.LOOK, Kind.SKIP_LOCK}
"""Steps that exist only if a guard is missing."""


def situation(before: State, step: Step, after: State) -> tuple[object, ...]:
    """Return what distinguishes one situation from another: the row before and after, and the owner of its lease."""
    was, now = before.record, after.record
    return step.kind, was.status, now.status, was.lease == step.worker, was.due, now.due, now.lease is not None


def shortest_traces() -> Iterator[tuple[Rules, list[Step]]]:
    """Yield the shortest trace through each situation, without traces that are the beginning of another one."""
    seen: set[tuple[object, ...]] = set()
    for rules in VIEWS:
        explorer = Explorer(rules)
        traces: list[list[Step]] = []
        for before, step, after in explorer.edges():
            if (case := situation(before, step, after)) not in seen:
                seen.add(case)
                traces.append([*explorer.trace(before), step])
        beginnings = {tuple(trace[:end]) for trace in traces for end in range(len(trace))}
        yield from ((rules, trace) for trace in traces if tuple(trace) not in beginnings)


def follow(real: RealRecord, before: State, after: State, trace: list[Step]) -> None:
    """Let the engine take the last step of the trace. Raises AssertionError with the trace if the engine differs."""
    try:
        real.take(trace[-1], before, after)
        real.check(after)
        if before.record != after.record:
            real.check_refusals(after)
    except AssertionError as error:
        error.add_note(as_text(trace))
        raise


def test_engine_follows_the_model_in_every_situation(redis_client: redis.Redis) -> None:
    done: set[Kind] = set()
    for rules, trace in shortest_traces():
        state, real = start(rules), RealRecord(redis_client, max_attempts=rules.max_attempts)
        for number, step in enumerate(trace, 1):
            before, state = state, dict(successors(state, rules))[step]
            follow(real, before, state, trace[:number])
            done.add(step.kind)

    assert done == set(Kind) - SWITCHED_OFF


def test_engine_follows_the_model_in_long_random_runs(redis_client: redis.Redis) -> None:
    class EngineMachine(ProtocolMachine):
        def __init__(self) -> None:
            super().__init__()
            self.real = RealRecord(redis_client, max_attempts=WIDE.max_attempts)

        def take(self, step: Step, after: State) -> None:
            before = self.state
            super().take(step, after)
            follow(self.real, before, after, self.trace)

    run_state_machine_as_test(EngineMachine, settings=runs(20, 80))
