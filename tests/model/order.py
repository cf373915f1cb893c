"""The order of the messages of one key as a pure function: claims, holds, settlements and operators of several records.

A step is one transaction of the engine, except a claim. Its statement sees the rows as they were when it began, and
takes a row as it is now; so the look and the claim are two steps, and the hold of a record that has to wait is a third
one, under the lock of the key. What guards one record (leases, locks, lost answers) is modelled in `protocol.py`: here
a lease ends only if its worker has crashed.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

UNFINISHED = ("pending", "sending", "failed")
GONE = -1
"""The lease of a worker that has crashed."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The guards that are on, and the bounds.

    unique: the index refuses a second record in flight. held_under_lock: a record is held by what the rows are under
    the lock of the key, and not by what the claim saw. looks_apart: other steps may come between look, claim and hold.
    dead_blocks: ORDER_AFTER_DEAD is "block". The other fields are bounds per run, and max_attempts per record.
    """

    unique: bool = True
    held_under_lock: bool = True
    looks_apart: bool = True
    dead_blocks: bool = False
    records: int = 2
    workers: int = 2
    max_attempts: int = 2
    crashes: int = 1
    operations: int = 1


class Kind(enum.StrEnum):
    """The steps."""

    COMMIT = "message {row} commits"
    LOOK = "worker {worker} looks at the rows"
    CLAIM = "worker {worker} claims message {row}"
    CONFLICT = "worker {worker} finds another message in flight, and begins again"
    FIND_BLOCKED = "worker {worker} finds that message {row} has to wait"
    HOLD = "worker {worker} holds message {row} under the lock of the key"
    SUCCEED = "worker {worker} sends message {row} and settles its success"
    FAIL = "worker {worker} sends message {row} and settles its failure"
    DIE = "message {row} of worker {worker} is dead"
    GIVE_BACK = "worker {worker} gives message {row} back"
    CRASH = "worker {worker} crashes"
    BECOME_DUE = "message {row} becomes due"
    CANCEL = "an operator cancels message {row}"
    LET_GO = "the cancellation lets the next message go"
    REPLAY = "an operator replays message {row}"
    RECHECK = "message {row} is looked at again"


HELPS = frozenset(Kind) - {Kind.CRASH, Kind.CANCEL, Kind.REPLAY, Kind.RECHECK}
"""Steps that happen without a fault or an operator. A recheck is none: no record may depend on it."""


class Step(NamedTuple):
    """One step by a worker or with a record."""

    kind: Kind
    worker: int = GONE
    row: int = GONE

    def __str__(self) -> str:
        return self.kind.value.format(worker="AB"[self.worker], row=self.row + 1)


class Row(NamedTuple):
    """One record. Its id is its place among the rows."""

    status: str = "absent"
    round: int = 0
    attempts: int = 0
    due: bool = False
    held: bool = False
    lease: int | None = None


Rows = tuple[Row, ...]


class Worker(NamedTuple):
    """One worker: idle, with what its claim saw, with a record to hold, or with a claimed record."""

    seen: Rows | None = None
    to_hold: int | None = None
    claimed: int | None = None
    before: Row | None = None
    """The claimed record before the claim."""


IDLE = Worker()


class State(NamedTuple):
    """The records of the key, and the workers."""

    rows: Rows
    workers: tuple[Worker, ...]
    crashes: int
    operations: int
    let_go: bool = False
    """A cancellation has committed, and has not let the next record go yet."""


Steps = Iterator[tuple[Step, State]]


def start(rules: Rules) -> State:
    """Return the state before the first request."""
    return State((Row(),) * rules.records, (IDLE,) * rules.workers, rules.crashes, rules.operations)


def first(rows: Rows) -> int | None:
    """Return which record goes first: a replayed one, then the lowest id."""
    unfinished = [number for number, row in enumerate(rows) if row.status in UNFINISHED]
    return min(unfinished, key=lambda number: (rows[number].round == 0, number), default=None)


def is_blocked(rows: Rows, number: int, rules: Rules) -> bool:
    """Return whether a record has to wait for another one."""
    if rows[number].status == "sending":
        return False
    flying = any(row.status == "sending" for row in rows)
    return first(rows) != number or flying or is_blocked_by_dead(rows, number, rules)


def is_blocked_by_dead(rows: Rows, number: int, rules: Rules) -> bool:
    """Return whether a dead record before it blocks a record."""
    return rules.dead_blocks and not rows[number].round and any(row.status == "dead" for row in rows[:number])


def successors(state: State, rules: Rules) -> Steps:
    """Yield each step that can happen next, with the state after it."""
    for number, row in enumerate(state.rows):
        if row.status == "absent":
            yield Step(Kind.COMMIT, row=number), _with_row(state, number, Row("pending", due=True))
        if row.status in UNFINISHED and not row.due and row.lease in (None, GONE):
            kind = Kind.RECHECK if row.held else Kind.BECOME_DUE
            yield Step(kind, row=number), _with_row(state, number, row._replace(due=True, held=False))
        yield from _operator(state, number, rules)
    for w, worker in enumerate(state.workers):
        if worker == IDLE and w == state.workers.index(IDLE):  # idle workers are interchangeable
            yield from _look(state, w, rules)
        if worker.seen is not None:
            yield from _claims(state, w, worker.seen, rules)
        if worker.to_hold is not None:
            yield Step(Kind.HOLD, w, worker.to_hold), _hold(state, w, worker.to_hold, rules)
        if worker.claimed is not None:
            yield from _settle(state, w, rules)
        if worker != IDLE and state.crashes:
            crashed = state._replace(crashes=state.crashes - 1)
            if worker.claimed is not None:
                crashed = _with_row(crashed, worker.claimed, state.rows[worker.claimed]._replace(lease=GONE))
            yield Step(Kind.CRASH, w), _with_worker(crashed, w, IDLE)
    if state.let_go:
        yield Step(Kind.LET_GO), _let_next_go(state._replace(let_go=False), rules)


def _operator(state: State, number: int, rules: Rules) -> Steps:
    row = state.rows[number]
    if not state.operations:
        return
    after = state._replace(operations=state.operations - 1)
    if row.status in ("pending", "failed") or (row.status == "dead" and rules.dead_blocks):
        cancelled = row._replace(status="skipped", due=False, held=False)
        yield Step(Kind.CANCEL, row=number), _with_row(after, number, cancelled)._replace(let_go=True)
    if row.status in ("dead", "sent"):
        yield Step(Kind.REPLAY, row=number), _with_row(after, number, Row("pending", row.round + 1, due=True))


def _look(state: State, w: int, rules: Rules) -> Steps:
    if not any(row.due for row in state.rows):
        return
    looked = _with_worker(state, w, Worker(seen=state.rows))
    if rules.looks_apart:
        yield Step(Kind.LOOK, w), looked
        return
    for step, after in _claims(looked, w, state.rows, rules):
        yield step, _hold(after, w, step.row, rules) if step.kind == Kind.FIND_BLOCKED else after


def _claims(state: State, w: int, seen: Rows, rules: Rules) -> Steps:
    """Claim a row that was due and is due still. The others are judged by what was seen."""
    due = [number for number, row in enumerate(state.rows) if row.due and seen[number].due]
    if not due:
        yield Step(Kind.CONFLICT, w), _with_worker(state, w, IDLE)
    for number in due:
        row = state.rows[number]
        if is_blocked((*seen[:number], seen[number]._replace(status=row.status), *seen[number + 1 :]), number, rules):
            if rules.held_under_lock:
                yield Step(Kind.FIND_BLOCKED, w, number), _with_worker(state, w, Worker(to_hold=number))
            else:
                held = _with_row(state, number, row._replace(due=False, held=True))
                yield Step(Kind.HOLD, w, number), _with_worker(held, w, IDLE)
        elif rules.unique and any(r.status == "sending" for n, r in enumerate(state.rows) if n != number):
            yield Step(Kind.CONFLICT, w), _with_worker(state, w, IDLE)
        else:
            attempts = min(row.attempts + 1, rules.max_attempts)
            claimed = Row("sending", row.round, attempts, lease=w)
            worker = Worker(claimed=number, before=row._replace(lease=None))
            yield Step(Kind.CLAIM, w, number), _with_worker(_with_row(state, number, claimed), w, worker)


def _hold(state: State, w: int, number: int, rules: Rules) -> State:
    row = state.rows[number]
    if row.due and row.status in ("pending", "failed") and is_blocked(state.rows, number, rules):
        state = _with_row(state, number, row._replace(due=False, held=True))
    return _with_worker(_let_next_go(state, rules), w, IDLE)


def _settle(state: State, w: int, rules: Rules) -> Steps:
    worker = state.workers[w]
    number, before = worker.claimed, worker.before
    assert number is not None
    assert before is not None
    row = state.rows[number]

    def settled(status: str) -> State:
        done = _with_row(state, number, row._replace(status=status, lease=None))
        return _with_worker(_let_next_go(done, rules), w, IDLE)

    if before.attempts >= rules.max_attempts:
        yield Step(Kind.DIE, w, number), settled("dead")
        return
    yield Step(Kind.SUCCEED, w, number), settled("sent")
    yield Step(Kind.FAIL, w, number), settled("failed" if row.attempts < rules.max_attempts else "dead")
    status = "failed" if before.status == "sending" else before.status
    given_back = _with_row(state, number, Row(status, before.round, before.attempts))
    yield Step(Kind.GIVE_BACK, w, number), _with_worker(_let_next_go(given_back, rules), w, IDLE)


def _let_next_go(state: State, rules: Rules) -> State:
    number = first(state.rows)
    if number is None or not state.rows[number].held or is_blocked(state.rows, number, rules):
        return state
    return _with_row(state, number, state.rows[number]._replace(due=True, held=False))


def _with_row(state: State, number: int, row: Row) -> State:
    return state._replace(rows=(*state.rows[:number], row, *state.rows[number + 1 :]))


def _with_worker(state: State, w: int, worker: Worker) -> State:
    return state._replace(workers=(*state.workers[:w], worker, *state.workers[w + 1 :]))


TWO_IN_FLIGHT = "at most one message of a key is in flight"
OVERTAKEN = "no message is claimed while one that comes before it waits"
CHANGED = "only an operator changes a message that is final"
STUCK = "from every state all messages can become final without a fault, an operator or a recheck"


class BrokenPromise(AssertionError):
    """A promise is broken. The text is the shortest trace to it."""

    def __init__(self, promise: str, trace: list[Step]) -> None:
        super().__init__("\n".join([f"broken: {promise}", *(f"{n:3}. {step}" for n, step in enumerate(trace, 1))]))
        self.promise = promise
        self.trace = trace


def broken_promise(before: State, step: Step, after: State, rules: Rules) -> str:
    """Return the promise that a step breaks, or an empty text."""
    if sum(row.status == "sending" for row in after.rows) > 1:
        return TWO_IN_FLIGHT
    seen = before.workers[step.worker].seen if step.kind == Kind.CLAIM else None
    if seen is not None and before.rows[step.row].status != "sending" and is_blocked(seen, step.row, rules):
        return OVERTAKEN
    final = ("sent", "dead", "skipped")
    changed = any(
        was.status in final and was.status != now.status for was, now in zip(before.rows, after.rows, strict=True)
    )
    return CHANGED if changed and step.kind not in (Kind.REPLAY, Kind.CANCEL) else ""


class Explorer:
    """Visits every state, those nearest to the start first, and remembers the step to each."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.reached_by: dict[State, tuple[State, Step] | None] = {start(rules): None}

    def edges(self) -> Iterator[tuple[State, Step, State]]:
        """Yield every step between two states."""
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


def explore(rules: Rules) -> int:
    """Visit every state, check each step, and return the number of states.

    Raises:
        BrokenPromise: with the shortest trace.
    """
    explorer = Explorer(rules)
    predecessors: dict[State, list[State]] = {}
    for before, step, after in explorer.edges():
        if promise := broken_promise(before, step, after, rules):
            raise BrokenPromise(promise, [*explorer.trace(before), step])
        if step.kind in HELPS:
            predecessors.setdefault(after, []).append(before)
    can_end = {state for state in explorer.reached_by if _is_over(state, rules)}
    queue = deque(can_end)
    while queue:
        for before in predecessors.get(queue.popleft(), ()):
            if before not in can_end:
                can_end.add(before)
                queue.append(before)
    nearest_stuck = next((state for state in explorer.reached_by if state not in can_end), None)
    if nearest_stuck:
        raise BrokenPromise(STUCK, explorer.trace(nearest_stuck))
    return len(explorer.reached_by)


def _is_over(state: State, rules: Rules) -> bool:
    """Return whether every message is final, or waits for a dead one."""
    return not state.let_go and all(
        row.status not in (*UNFINISHED, "absent") or (row.status != "sending" and is_blocked_by_dead(rows, n, rules))
        for rows in [state.rows]
        for n, row in enumerate(rows)
    )
