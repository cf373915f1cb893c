"""The model as a hypothesis state machine: long random runs with bounds too wide to visit every state."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.model.explorer import PROMISES, BrokenPromise
from tests.model.protocol import start, successors
from tests.model.world import Kind, Rules, State, Step, StepSource

WIDE = Rules(workers=3, max_attempts=4, replays=1000, crashes=20, redis_faults=20)
WEIGHTS = {StepSource.WORK: 8, StepSource.TIME: 3, StepSource.FAULT: 1, StepSource.OPERATOR: 1}
RARE = {Kind.FIND_LEASE_TOO_SHORT: 1, Kind.RELEASE_SECOND_RECOVERY: 1}
"""How often steps are chosen: most steps of a run are work, not its interruption."""


def runs(examples: int, steps: int, *, shrink: bool = True) -> settings:
    """Return settings for this many runs with this many steps. The runs are the same every time."""
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
    """Takes random steps of the model and checks each against the promises."""

    guards = WIDE

    def __init__(self) -> None:
        super().__init__()
        self.state = start(self.guards)
        self.trace: list[Step] = []

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """Take one of the steps that can happen next."""
        choices = list(successors(self.state, self.guards))
        weights = [RARE.get(step.kind, WEIGHTS[step.kind.source]) for step, _after in choices]
        weighted = [number for number, weight in enumerate(weights) for _ in range(weight)]
        self.take(*choices[data.draw(st.sampled_from(weighted))])

    def take(self, step: Step, after: State) -> None:
        """Take this step. Raises BrokenPromise."""
        before, self.state = self.state, after
        self.trace.append(step)
        for promise, broken in PROMISES.items():
            if broken(before, step, after, self.guards):
                raise BrokenPromise(promise, self.trace)
