"""The messages of one order key keep their order in every reachable state, and the engine does what the model does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from notifications.conf import service_options
from notifications.delivery.admission import hold
from notifications.delivery.claim import Claimed, claim
from notifications.delivery.settle import record_lost_attempts, settle_batch
from notifications.delivery.settlement import build_settlement, unsendable_result
from notifications.models import NotificationRecord
from notifications.ordering.key_order import let_next_go
from notifications.providers.base import SendResult
from notifications.service import NotificationService
from notifications.states import HoldReason
from tests.model.order import (
    STUCK,
    TWO_IN_FLIGHT,
    BrokenPromise,
    Explorer,
    Kind,
    Row,
    Rules,
    State,
    Step,
    explore,
    start,
    successors,
)
from tests.support.delivery import NOW, OK, TRY_LATER, make_due_record
from tests.support.depth import FAST, PART

VIEWS = {
    "a crash and an operation": (Rules(), 127_000),
    "a dead message blocks": (Rules(dead_blocks=True, crashes=0), 37_000),
    "three messages": (Rules(records=3, max_attempts=1, crashes=0, operations=0), 25_000),
}
"""Bounds, and the least number of states within them."""

FOLLOWED = [
    Rules(looks_apart=False, max_attempts=1),
    Rules(looks_apart=False, max_attempts=1, crashes=0, dead_blocks=True),
    Rules(looks_apart=False, crashes=0, operations=0),
]
KEY = "order-1"
LATER = timedelta(days=1)


@pytest.mark.parametrize("view", VIEWS)
def test_every_promise_holds_in_every_state(view: str) -> None:
    rules, least_states = VIEWS[view]

    assert explore(rules) >= least_states


def trace_to_a_broken_promise(rules: Rules) -> tuple[str, list[str]]:
    with pytest.raises(BrokenPromise) as broken:
        explore(rules)
    print(broken.value)  # noqa: T201  pytest shows it when a test fails
    return broken.value.promise, [str(step) for step in broken.value.trace]


def test_two_messages_are_in_flight_without_the_unique_index() -> None:
    assert trace_to_a_broken_promise(Rules(unique=False)) == (
        TWO_IN_FLIGHT,
        [
            "message 2 commits",
            "worker A looks at the rows",
            "message 1 commits",
            "worker B looks at the rows",
            "worker A claims message 2",
            "worker B claims message 1",
        ],
    )


def test_a_message_waits_for_ever_if_a_claim_holds_it_by_what_it_saw() -> None:
    assert trace_to_a_broken_promise(Rules(held_under_lock=False, crashes=0, operations=0)) == (
        STUCK,
        [
            "message 1 commits",
            "message 2 commits",
            "worker A looks at the rows",
            "worker A claims message 1",
            "worker B looks at the rows",
            "worker A sends message 1 and settles its success",
            "worker B holds message 2 under the lock of the key",
        ],
    )


class RealKey:
    """Records of one key in PostgreSQL, which follow the steps of the model with the functions of the project."""

    def __init__(self, rules: Rules) -> None:
        NotificationRecord.objects.all().delete()
        self.options = dataclasses.replace(service_options(), max_attempts=rules.max_attempts)
        self.service = NotificationService(options=self.options, clock=lambda: NOW)
        # A record exists from the beginning, as its id does, and gets its key when it commits.
        self.ids = [make_due_record(f"k{n}", status="skipped", next_attempt_at=None).pk for n in range(rules.records)]
        self.claims: dict[int, Claimed] = {}

    def take(self, step: Step) -> None:
        """Take one step."""
        record = NotificationRecord.objects.filter(pk=self.ids[step.row])
        match step.kind:
            case Kind.COMMIT:
                record.update(
                    status="pending", order_key=KEY, next_attempt_at=NOW, max_attempts=self.options.max_attempts
                )
            case Kind.CLAIM | Kind.FIND_BLOCKED:
                rows = claim(1, channels=["feishu"], options=self.options, clock=lambda: NOW, ids=[self.ids[step.row]])
                assert (len(rows), rows.blocked) == ((1, 0) if step.kind == Kind.CLAIM else (0, 1))
                record_lost_attempts(rows, lambda: NOW)
                self.claims |= dict.fromkeys([step.worker], rows[0]) if rows else {}
            case Kind.SUCCEED:
                self._settle(step, OK)
            case Kind.FAIL:
                self._settle(step, TRY_LATER)
            case Kind.DIE:
                self._settle(step, unsendable_result(self.claims[step.worker]))
            case Kind.GIVE_BACK:
                hold([self.claims.pop(step.worker)], HoldReason.NONE, delay=60, clock=lambda: NOW)
            case Kind.CRASH:
                del self.claims[step.worker]
            case Kind.BECOME_DUE:
                record.update(next_attempt_at=NOW)
            case Kind.RECHECK:
                record.update(next_attempt_at=NOW, hold_reason="")
            case Kind.CANCEL:
                assert self.service.cancel(record, None, "model") == 1
            case Kind.LET_GO:
                let_next_go([("feishu", KEY)], lambda: NOW)
            case Kind.REPLAY:
                assert self.service.replay(record, None, "model", force=True) == 1

    def _settle(self, step: Step, result: SendResult) -> None:
        row = self.claims.pop(step.worker)
        settlement = build_settlement(row, result, self.options, duration=0, age=0)
        assert settle_batch([settlement], lambda: NOW) == {row.record_id}

    def check(self, state: State) -> None:
        """Compare the records with the model."""
        assert [self._seen(pk, row) for pk, row in zip(self.ids, state.rows, strict=True)] == list(
            map(_known, state.rows)
        )

    def _seen(self, pk: int, row: Row) -> tuple[Any, ...]:
        stored = NotificationRecord.objects.get(pk=pk)
        if not stored.order_key:
            return _known(row) if row.status == "absent" else ("absent",)
        due = stored.next_attempt_at is not None and stored.next_attempt_at <= NOW
        held = stored.hold_reason == HoldReason.ORDER
        return stored.status, stored.round, stored.attempt_count, due, held


def _known(row: Row) -> tuple[Any, ...]:
    """Return what the table knows of a row of the model. The attempts of a final row do not matter."""
    return row.status, row.round, row.attempts, row.due, row.held


def shortest_traces() -> Iterator[tuple[Rules, list[Step]]]:
    """Yield the shortest trace through each situation: the step, and the rows before and after it."""
    for rules in FOLLOWED:
        explorer = Explorer(rules)
        seen: set[tuple[Any, ...]] = set()
        traces: list[list[Step]] = []
        for before, step, after in explorer.edges():
            rows = [
                tuple((row.status, row.round, row.due, row.held) for row in state.rows) for state in (before, after)
            ]
            if (case := (step.kind, step.row, *rows)) not in seen:
                seen.add(case)
                traces.append([*explorer.trace(before), step])
        beginnings = {tuple(trace[:end]) for trace in traces for end in range(len(trace))}
        longest = [trace for trace in traces if tuple(trace) not in beginnings]
        yield from ((rules, trace) for trace in longest[:: PART if FAST else 1])


@pytest.mark.django_db
def test_engine_follows_the_model_in_every_situation(change: Any) -> None:
    done: set[Kind] = set()
    after_dead = ""
    for rules, trace in shortest_traces():
        if after_dead != (after_dead := "block" if rules.dead_blocks else "skip"):  # each change nests the settings
            change(ORDER_AFTER_DEAD=after_dead)
        state, real = start(rules), RealKey(rules)
        for number, step in enumerate(trace, 1):
            state = dict(successors(state, rules))[step]
            try:
                real.take(step)
                real.check(state)
            except AssertionError as error:
                error.add_note("\n".join(map(str, trace[:number])))
                raise
            done.add(step.kind)

    assert FAST or done == set(Kind) - {Kind.LOOK, Kind.CONFLICT, Kind.HOLD}
