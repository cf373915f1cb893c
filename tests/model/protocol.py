"""The protocol as a pure function: every step that may happen next, and the world after it.

Claim, lock, send and settle are those of `notifications/claim.py`, `locks.py`, `delivery.py` and `settle.py`; each
step is one statement of theirs. Time is a choice: whatever may run out may do so at any moment, but no lock before
its lease.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.world import GONE, IN_FLIGHT, Kind, Record, Rules, Send, Stage, State, Step, Worker

SCHEDULED = ("pending", "sending", "failed")
FINAL = ("sent", "dead", "skipped")
SETTLES = {"success": "sent", "permanent_fail": "dead", "skipped": "skipped"}
Steps = Iterator[tuple[Step, State]]


def start(rules: Rules) -> State:
    """Return the world right after a request committed."""
    return State(workers=(Worker(),) * rules.workers, crashes=rules.crashes, redis_faults=rules.redis_faults)


def successors(state: State, rules: Rules) -> Steps:
    """Yield each step that may happen next with the world after it."""
    first_idle = next((w for w, worker in enumerate(state.workers) if worker.stage == Stage.IDLE), GONE)
    for w, worker in enumerate(state.workers):
        match worker.stage:
            case Stage.IDLE if w == first_idle:  # one idle worker is like another
                yield from _look_or_claim(state, w, rules)
            case Stage.LOOKED:
                yield Step(Kind.CLAIM, w), _claim(state, w, worker.before or state.record, rules)
            case Stage.CLAIMED:
                yield from _lock(state, w, rules)
            case Stage.LOCKED:
                yield _recheck(state, w)
            case Stage.READY:
                yield from _begin(state, w, rules)
            case Stage.SENDING:
                yield from _answer(state, w)
            case Stage.ANSWERED:
                yield _settle(state, w, rules)
            case Stage.SETTLED:
                yield Step(Kind.RELEASE, w), _leave(state, w)
        yield from _time_of_worker(state, w)
        if worker.stage >= Stage.CLAIMED and state.crashes:
            crashed = _leave(_excuse(state, w), w, crashed=True)
            yield Step(Kind.CRASH, w), crashed._replace(crashes=state.crashes - 1)
    yield from _time(state)
    if rules.locked:
        yield from _redis(state)
    yield from _operator(state, rules)


def _look_or_claim(state: State, w: int, rules: Rules) -> Steps:
    if not state.record.due:
        return
    if rules.claim_is_atomic:
        yield Step(Kind.CLAIM, w), _claim(state, w, state.record, rules)
    else:
        yield Step(Kind.LOOK, w), _set(state, w, Worker(Stage.LOOKED, before=state.record))


def _claim(state: State, w: int, seen: Record, rules: Rules) -> State:
    attempts = min(seen.attempts + 1, rules.max_attempts)
    record = state.record._replace(status="sending", attempts=attempts, lease=w, due=False)
    return _set(state._replace(record=record), w, Worker(Stage.CLAIMED, before=seen._replace(cancelled=False)))


def _lock(state: State, w: int, rules: Rules) -> Steps:
    worker = state.workers[w]
    recovers = worker.before is not None and worker.before.status == "sending"
    locked = worker._replace(stage=Stage.LOCKED if recovers and rules.rechecked else Stage.READY)
    if recovers:
        yield Step(Kind.LEAVE_TO_OTHERS, w), _leave(_give_back(state, w, due=True), w)
    if not rules.locked:
        yield Step(Kind.SKIP_LOCK, w), _set(state, w, locked)
    elif state.redis_away:  # nobody's lock keeps this worker off
        others = tuple(one._replace(lock_failed=one.stage in IN_FLIGHT) for one in state.workers)
        blind = _set(state._replace(workers=others), w, locked._replace(lock_failed=True))
        yield Step(Kind.DO_WITHOUT_LOCK, w), _excuse_unguarded(blind)
    elif state.lock is None:
        yield Step(Kind.TAKE_LOCK, w), _set(state._replace(lock=w), w, locked)
    else:
        yield Step(Kind.FIND_KEY_HELD, w), _leave(_give_back(state, w, due=False), w)


def _recheck(state: State, w: int) -> tuple[Step, State]:
    if state.record.status == "sending" and state.record.lease == w:
        return Step(Kind.NOTE_LOST, w), _set(state, w, state.workers[w]._replace(stage=Stage.READY))
    return Step(Kind.FIND_CLAIM_GONE, w), _written(state, w)


def _begin(state: State, w: int, rules: Rules) -> Steps:
    worker = state.workers[w]
    before = worker.before or state.record
    if before.attempts >= rules.max_attempts:
        answered = worker._replace(stage=Stage.ANSWERED, answer="permanent_fail")
        yield Step(Kind.FIND_BUDGET_SPENT, w), _set(state, w, answered)
        return
    yield Step(Kind.WAKE_LATE, w), _written(_give_back(state, w, due=True), w)
    if not worker.past_lease:
        made = tuple(number + (at == worker.round) for at, number in enumerate(state.made))
        yield Step(Kind.BEGIN, w), _set(state._replace(made=made), w, worker._replace(stage=Stage.SENDING))


def _answer(state: State, w: int) -> Steps:
    worker = state.workers[w]

    def answered(answer: str) -> State:
        return _set(state, w, worker._replace(stage=Stage.ANSWERED, answer=answer))

    accepted = answered("success")
    if not worker.unguarded:
        accepted = accepted._replace(sends=tuple(sorted((*state.sends, Send(worker.round, w)))))
    yield Step(Kind.BE_ACCEPTED, w), accepted
    yield Step(Kind.LOSE_ANSWER, w), answered("temporary_fail")
    yield Step(Kind.BE_PUT_OFF, w), answered("temporary_fail")
    yield Step(Kind.BE_REFUSED, w), answered("permanent_fail")
    yield Step(Kind.BE_SKIPPED, w), answered("skipped")


def _settle(state: State, w: int, rules: Rules) -> tuple[Step, State]:
    worker, record = state.workers[w], state.record
    number = min((worker.before or record).attempts + 1, rules.max_attempts)
    again = worker.answer == "temporary_fail" and number < rules.max_attempts
    status = "failed" if again else SETTLES.get(worker.answer, "dead")
    mine = record.status == "sending" and (record.lease == w or not rules.fenced)
    if status == "sent":
        mine = record.status != "sent"
    if mine:
        record = record._replace(status=status, lease=None, due=False, cancelled=False)
    kind = Kind.SETTLE_SUCCESS if status == "sent" else Kind.SETTLE_FAILURE
    return Step(kind, w), _written(state._replace(record=record), w)


def _give_back(state: State, w: int, *, due: bool) -> State:
    """Undo the claim, if it still stands."""
    before, record = state.workers[w].before, state.record
    if before and record.status == "sending" and record.lease == w:
        record = record._replace(status=before.status, attempts=before.attempts, lease=before.lease, due=due)
    return state._replace(record=record)


def _time_of_worker(state: State, w: int) -> Steps:
    worker, record = state.workers[w], state.record
    if worker.stage in IN_FLIGHT and not worker.past_lease:
        ended = record._replace(due=record.due or record.lease == w)
        late = _set(state._replace(record=ended), w, worker._replace(past_lease=True))
        yield Step(Kind.LEASE_ENDS, w), _excuse_unguarded(late)
    may_hold = worker.stage in IN_FLIGHT[1:] and worker.past_lease and not worker.past_lock
    if may_hold or (worker.stage == Stage.SETTLED and state.lock == w):
        later = _set(state, w, worker._replace(past_lock=may_hold))
        yield Step(Kind.LOCK_ENDS, w), _excuse_unguarded(later._replace(lock=None if state.lock == w else state.lock))


def _time(state: State) -> Steps:
    record = state.record
    held = record.lease not in (None, GONE) and not state.workers[record.lease or 0].past_lease
    if record.status in SCHEDULED and not record.due and not held:
        yield Step(Kind.BECOME_DUE), state._replace(record=record._replace(due=True))
    if state.lock == GONE:
        yield Step(Kind.ORPHAN_LOCK_ENDS), state._replace(lock=None)


def _redis(state: State) -> Steps:
    if state.redis_away:
        yield Step(Kind.REDIS_RETURNS), state._replace(redis_away=False)
    elif state.redis_faults:
        left = state._replace(redis_faults=state.redis_faults - 1)
        yield Step(Kind.REDIS_GOES), left._replace(redis_away=True)
        if state.lock is not None:
            failed = tuple(one._replace(lock_failed=one.stage in IN_FLIGHT) for one in state.workers)
            yield Step(Kind.REDIS_RESTARTS_EMPTY), _excuse_unguarded(left._replace(lock=None, workers=failed))


def _operator(state: State, rules: Rules) -> Steps:
    record = state.record
    if record.status in ("pending", "failed"):
        cancelled = record._replace(status="skipped", due=False, cancelled=True)
        yield Step(Kind.CANCEL), state._replace(record=cancelled)
    if record.status in FINAL and record.round < rules.replays:
        forced = record.status == "sent" or record.cancelled
        again = Record(round=record.round + 1)
        yield (
            Step(Kind.FORCE_REPLAY if forced else Kind.REPLAY),
            _close_rounds(state._replace(record=again, made=(*state.made, 0))),
        )


def _set(state: State, w: int, worker: Worker) -> State:
    return state._replace(workers=(*state.workers[:w], worker, *state.workers[w + 1 :]))


def _written(state: State, w: int) -> State:
    """All is written down; what is left is the lock, if the worker still has it."""
    if state.lock != w:
        return _leave(state, w)
    return _set(_forget(state, w)._replace(lock=w), w, Worker(Stage.SETTLED))


def _leave(state: State, w: int, *, crashed: bool = False) -> State:
    """Let the worker go: with its lock given back, unless it crashed or Redis does not hear."""
    if state.lock == w and not crashed and not state.redis_away:
        state = state._replace(lock=None)
    return _close_rounds(_set(_forget(state, w), w, Worker()))


def _forget(state: State, w: int) -> State:
    """Nobody will use the worker's tokens again, so any other name will do: this keeps the model finite."""

    def renamed(record: Record) -> Record:
        return record._replace(lease=GONE) if record.lease == w else record

    return state._replace(
        record=renamed(state.record),
        lock=GONE if state.lock == w else state.lock,
        workers=tuple(one._replace(before=one.before and renamed(one.before)) for one in state.workers),
        sends=tuple(sorted(send._replace(worker=GONE) if send.worker == w else send for send in state.sends)),
    )


def _close_rounds(state: State) -> State:
    """Drop what is counted of rounds in which nothing can happen any more: this keeps the model small."""
    open_rounds = {state.record.round} | {worker.round for worker in state.workers if worker.stage != Stage.IDLE}
    made = tuple(number if at in open_rounds else 0 for at, number in enumerate(state.made))
    return state._replace(made=made, sends=tuple(send for send in state.sends if send.round in open_rounds))


def _excuse(state: State, w: int) -> State:
    """Let what this worker had accepted be repeated: nobody could know."""
    return state._replace(sends=tuple(send for send in state.sends if send.worker != w))


def _excuse_unguarded(state: State) -> State:
    for w, worker in enumerate(state.workers):
        if worker.unguarded:
            state = _excuse(state, w)
    return state
