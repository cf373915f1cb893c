"""Visits every state that the protocol can reach, nearest first, and checks each step against the promises."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.model.protocol import FINAL, start, successors
from tests.model.world import Kind, Rules, State, Step, StepSource

Broken = Callable[[State, Step, State, Rules], bool]

SENT_TWICE = "no round is accepted twice unless nobody can know"
SENT_CHANGED = "only a forced replay changes a sent record"
TOO_MANY_ATTEMPTS = "no round makes more attempts than allowed"
LATE_FAILURE = "a failure settled under a lost lease changes nothing"
STUCK = "from every state the record can become final without a fault or an operator"


def _sent_twice(before: State, step: Step, after: State, rules: Rules) -> bool:
    rounds = [send.round for send in after.sends]
    return len(rounds) > len(set(rounds))


def _sent_changed(before: State, step: Step, after: State, rules: Rules) -> bool:
    changed = before.record.status == "sent" != after.record.status
    return changed and step.kind != Kind.FORCE_REPLAY


def _too_many_attempts(before: State, step: Step, after: State, rules: Rules) -> bool:
    return max(after.made) > rules.max_attempts or after.record.attempts > rules.max_attempts


def _late_failure(before: State, step: Step, after: State, rules: Rules) -> bool:
    late = step.kind == Kind.SETTLE_FAILURE and before.record.lease != step.worker
    return late and before.record != after.record


PROMISES: Mapping[str, Broken] = {
    SENT_TWICE: _sent_twice,
    SENT_CHANGED: _sent_changed,
    TOO_MANY_ATTEMPTS: _too_many_attempts,
    LATE_FAILURE: _late_failure,
}
"""The promises that no step may break."""


def as_text(trace: Sequence[Step]) -> str:
    """Return the trace as text, with a numbered line for each step."""
    return "\n".join(f"{number:3}. {step}" for number, step in enumerate(trace, 1))


class BrokenPromise(AssertionError):
    """A promise is broken. The text is the shortest trace to it."""

    def __init__(self, promise: str, trace: list[Step]) -> None:
        super().__init__(f"broken: {promise}\n{as_text(trace)}")
        self.promise = promise
        self.trace = trace


@dataclass(frozen=True, slots=True)
class Explored:
    """Number of states and steps that were visited."""

    states: int
    steps: int


class Explorer:
    """Searches breadth first from the start, and remembers the step to each state."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.reached_by: dict[State, tuple[State, Step] | None] = {start(rules): None}

    def edges(self) -> Iterator[tuple[State, Step, State]]:
        """Yield every step between two states, those nearest to the start first."""
        queue = deque(self.reached_by)
        while queue:
            before = queue.popleft()
            for step, after in successors(before, self.rules):
                if after not in self.reached_by:
                    self.reached_by[after] = before, step
                    queue.append(after)
                yield before, step, after

    def trace(self, state: State) -> list[Step]:
        """Return the shortest trace to a visited state."""
        steps = []
        while link := self.reached_by[state]:
            state, step = link
            steps.append(step)
        return steps[::-1]


def explore(rules: Rules, *promises: str, at_most: int | None = None) -> Explored:
    """Visit every state within the bounds and check each step against the promises, all of them by default.

    `at_most` ends the visit after this many states, the nearest ones. Whether a state is stuck is then not known, and
    not checked. Raises BrokenPromise with a shortest trace.
    """
    explorer = Explorer(rules)
    checks = {name: PROMISES[name] for name in promises or PROMISES}
    predecessors: dict[State, list[State]] = {}
    steps = 0
    for before, step, after in explorer.edges():
        steps += 1
        for name, broken in checks.items():
            if broken(before, step, after, rules):
                raise BrokenPromise(name, [*explorer.trace(before), step])
        if step.kind.source in (StepSource.WORK, StepSource.TIME):
            predecessors.setdefault(after, []).append(before)
        if at_most is not None and len(explorer.reached_by) >= at_most:
            return Explored(states=len(explorer.reached_by), steps=steps)
    stuck = explorer.reached_by.keys() - _states_that_can_end(explorer, predecessors)
    if stuck and not promises:
        raise BrokenPromise(STUCK, min((explorer.trace(state) for state in stuck), key=len))
    return Explored(states=len(explorer.reached_by), steps=steps)


def _states_that_can_end(explorer: Explorer, predecessors: Mapping[State, list[State]]) -> set[State]:
    can_end = {state for state in explorer.reached_by if state.record.status in FINAL}
    queue = deque(can_end)
    while queue:
        for before in predecessors.get(queue.popleft(), ()):
            if before not in can_end:
                can_end.add(before)
                queue.append(before)
    return can_end
