"""The model as a hypothesis state machine: long random runs, with wider bounds than can be visited one by one."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.model.explorer import PROMISES, BrokenPromise
from tests.model.protocol import start, successors
from tests.model.world import Kind, Rules, Sort, State, Step

WIDE = Rules(workers=3, max_attempts=4, replays=1000, crashes=20, redis_faults=20)
WEIGHTS = {Sort.WORK: 8, Sort.TIME: 3, Sort.FAULT: 1, Sort.OPERATOR: 1}
RARE = {Kind.WAKE_LATE: 1, Kind.LEAVE_TO_OTHERS: 1}
"""How often steps are chosen, so that most of a run is work and not its interruption."""


def runs(examples: int, steps: int, *, shrink: bool = True) -> settings:
    """Return settings for this many runs of this many steps, the same ones every time."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )


class ProtocolMachine(RuleBasedStateMachine):
    """Takes one step of the model after the other and holds each against the promises."""

    guards = WIDE

    def __init__(self) -> None:
        super().__init__()
        self.state = start(self.guards)
        self.trace: list[Step] = []

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Take one of the steps that may happen next."""
        choices = list(successors(self.state, self.guards))
        weights = [RARE.get(step.kind, WEIGHTS[step.kind.sort]) for step, _after in choices]
        weighted = [number for number, weight in enumerate(weights) for _ in range(weight)]
        self.take(*choices[data.draw(st.sampled_from(weighted))])

    def take(self, step: Step, after: State) -> None:
        """Take this step. Raises BrokenPromise."""
        before, self.state = self.state, after
        self.trace.append(step)
        for promise, broken in PROMISES.items():
            if broken(before, step, after, self.guards):
                raise BrokenPromise(promise, self.trace)
