"""Visits every world the protocol can get into, nearest first, and holds each step against the promises."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.model.protocol import FINAL, start, successors
from tests.model.world import Kind, Rules, Sort, State, Step

Broken = Callable[[State, Step, State, Rules], bool]

SENT_TWICE = "no round is accepted twice unless nobody could know"
SENT_LEFT = "sent is left by a forced replay only"
TOO_MANY = "no round makes more attempts than are allowed"
LATE_FAILURE = "a failure settled under a lost lease changes nothing"
STUCK = "from every world the record can end without a fault or an operator"


def _sent_twice(before: State, step: Step, after: State, rules: Rules) -> bool:
    rounds = [send.round for send in after.sends]
    return len(rounds) > len(set(rounds))


def _sent_left(before: State, step: Step, after: State, rules: Rules) -> bool:
    left = before.record.status == "sent" != after.record.status
    return left and step.kind != Kind.FORCE_REPLAY


def _too_many(before: State, step: Step, after: State, rules: Rules) -> bool:
    return max(after.made) > rules.max_attempts or after.record.attempts > rules.max_attempts


def _late_failure(before: State, step: Step, after: State, rules: Rules) -> bool:
    late = step.kind == Kind.SETTLE_FAILURE and before.record.lease != step.worker
    return late and before.record != after.record


PROMISES: Mapping[str, Broken] = {
    SENT_TWICE: _sent_twice,
    SENT_LEFT: _sent_left,
    TOO_MANY: _too_many,
    LATE_FAILURE: _late_failure,
}
"""What no step may break."""


def as_text(trace: Sequence[Step]) -> str:
    """Return the trace for people, a numbered line for each step."""
    return "\n".join(f"{number:3}. {step}" for number, step in enumerate(trace, 1))


class BrokenPromise(AssertionError):
    """A way to break a promise, shortest first; its text is the trace."""

    def __init__(self, promise: str, trace: list[Step]) -> None:
        super().__init__(f"broken: {promise}\n{as_text(trace)}")
        self.promise = promise
        self.trace = trace


@dataclass(frozen=True, slots=True)
class Explored:
    """How much there was to see."""

    states: int
    steps: int


class Explorer:
    """Walks breadth first from the start, and remembers how it came to each world."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.came_by: dict[State, tuple[State, Step] | None] = {start(rules): None}

    def edges(self) -> Iterator[tuple[State, Step, State]]:
        """Yield every step between two worlds, those nearest to the start first."""
        queue = deque(self.came_by)
        while queue:
            before = queue.popleft()
            for step, after in successors(before, self.rules):
                if after not in self.came_by:
                    self.came_by[after] = before, step
                    queue.append(after)
                yield before, step, after

    def trace(self, state: State) -> list[Step]:
        """Return the shortest way to a world that was seen."""
        steps = []
        while link := self.came_by[state]:
            state, step = link
            steps.append(step)
        return steps[::-1]


def explore(rules: Rules, *promises: str) -> Explored:
    """Visit every world within the bounds and hold each step against the promises, all of them by default.

    Raises BrokenPromise with a shortest trace.
    """
    explorer = Explorer(rules)
    checks = {name: PROMISES[name] for name in promises or PROMISES}
    ways_in: dict[State, list[State]] = {}
    steps = 0
    for before, step, after in explorer.edges():
        steps += 1
        for name, broken in checks.items():
            if broken(before, step, after, rules):
                raise BrokenPromise(name, [*explorer.trace(before), step])
        if step.kind.sort in (Sort.WORK, Sort.TIME):
            ways_in.setdefault(after, []).append(before)
    stuck = explorer.came_by.keys() - _leading_to_an_end(explorer, ways_in)
    if stuck and not promises:
        raise BrokenPromise(STUCK, min((explorer.trace(state) for state in stuck), key=len))
    return Explored(states=len(explorer.came_by), steps=steps)


def _leading_to_an_end(explorer: Explorer, ways_in: Mapping[State, list[State]]) -> set[State]:
    good = {state for state in explorer.came_by if state.record.status in FINAL}
    queue = deque(good)
    while queue:
        for before in ways_in.get(queue.popleft(), ()):
            if before not in good:
                good.add(before)
                queue.append(before)
    return good
