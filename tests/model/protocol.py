"""The protocol as a pure function: every step that can happen next, and the state after it.

Claim, lock, send and settle are those of `notifications/delivery`; each step is one of its statements. Time is a choice
of the model: a lease or a lock can end at any moment, but no lock ends before its lease.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.world import GONE, IN_FLIGHT, Kind, Record, Rules, Send, Stage, State, Step, Worker

SCHEDULED = ("pending", "sending", "failed")
FINAL = ("sent", "dead", "skipped")
SETTLES = {"success": "sent", "permanent_fail": "dead", "skipped": "skipped"}
Steps = Iterator[tuple[Step, State]]


def start(rules: Rules) -> State:
    """Return the state after a request was committed."""
    return State(workers=(Worker(),) * rules.workers, crashes=rules.crashes, redis_faults=rules.redis_faults)


def successors(state: State, rules: Rules) -> Steps:
    """Yield each step that can happen next, with the state after it."""
    first_idle = next((w for w, worker in enumerate(state.workers) if worker.stage == Stage.IDLE), GONE)
    for w, worker in enumerate(state.workers):
        match worker.stage:
            case Stage.IDLE if w == first_idle:  # idle workers are interchangeable
                yield from _read_or_claim(state, w, rules)
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
                yield Step(Kind.RELEASE, w), _make_idle(state, w)
        yield from _time_of_worker(state, w)
        if worker.stage >= Stage.CLAIMED and state.crashes:
            crashed = _make_idle(_allow_repeat(state, w), w, crashed=True)
            yield Step(Kind.CRASH, w), crashed._replace(crashes=state.crashes - 1)
    yield from _time(state)
    if rules.locked:
        yield from _redis(state)
    yield from _operator(state, rules)


def _read_or_claim(state: State, w: int, rules: Rules) -> Steps:
    if not state.record.due:
        return
    if rules.claim_is_atomic:
        yield Step(Kind.CLAIM, w), _claim(state, w, state.record, rules)
    else:
        yield Step(Kind.LOOK, w), _with_worker(state, w, Worker(Stage.LOOKED, before=state.record))


def _claim(state: State, w: int, seen: Record, rules: Rules) -> State:
    attempts = min(seen.attempts + 1, rules.max_attempts)
    record = state.record._replace(status="sending", attempts=attempts, lease=w, due=False)
    return _with_worker(state._replace(record=record), w, Worker(Stage.CLAIMED, before=seen._replace(cancelled=False)))


def _lock(state: State, w: int, rules: Rules) -> Steps:
    worker = state.workers[w]
    recovers = worker.before is not None and worker.before.status == "sending"
    locked = worker._replace(stage=Stage.LOCKED if recovers and rules.rechecked else Stage.READY)
    if recovers:
        yield Step(Kind.RELEASE_SECOND_RECOVERY, w), _make_idle(_release_claim(state, w, due=True), w)
    if not rules.locked:
        yield Step(Kind.SKIP_LOCK, w), _with_worker(state, w, locked)
    elif state.redis_away:  # no lock stops this worker
        others = tuple(other._replace(lock_failed=other.stage in IN_FLIGHT) for other in state.workers)
        blind = _with_worker(state._replace(workers=others), w, locked._replace(lock_failed=True))
        yield Step(Kind.CONTINUE_WITHOUT_LOCK, w), _allow_repeats_of_unguarded(blind)
    elif state.lock is None:
        yield Step(Kind.TAKE_LOCK, w), _with_worker(state._replace(lock=w), w, locked)
    else:
        yield Step(Kind.FIND_KEY_HELD, w), _make_idle(_release_claim(state, w, due=False), w)


def _recheck(state: State, w: int) -> tuple[Step, State]:
    if state.record.status == "sending" and state.record.lease == w:
        return Step(Kind.RECORD_LOST_ATTEMPT, w), _with_worker(state, w, state.workers[w]._replace(stage=Stage.READY))
    return Step(Kind.FIND_CLAIM_INVALID, w), _store_result(state, w)


def _begin(state: State, w: int, rules: Rules) -> Steps:
    worker = state.workers[w]
    before = worker.before or state.record
    if before.attempts >= rules.max_attempts:
        answered = worker._replace(stage=Stage.ANSWERED, answer="permanent_fail")
        yield Step(Kind.FIND_BUDGET_SPENT, w), _with_worker(state, w, answered)
        return
    yield Step(Kind.FIND_LEASE_TOO_SHORT, w), _store_result(_release_claim(state, w, due=True), w)
    if not worker.past_lease:
        made = tuple(number + (at == worker.round) for at, number in enumerate(state.made))
        yield Step(Kind.BEGIN, w), _with_worker(state._replace(made=made), w, worker._replace(stage=Stage.SENDING))


def _answer(state: State, w: int) -> Steps:
    worker = state.workers[w]

    def answered(answer: str) -> State:
        return _with_worker(state, w, worker._replace(stage=Stage.ANSWERED, answer=answer))

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
    may_settle = record.status == "sending" and (record.lease == w or not rules.fenced)
    if status == "sent":
        may_settle = record.status != "sent"
    if may_settle:
        record = record._replace(status=status, lease=None, due=False, cancelled=False)
    kind = Kind.SETTLE_SUCCESS if status == "sent" else Kind.SETTLE_FAILURE
    return Step(kind, w), _store_result(state._replace(record=record), w)


def _release_claim(state: State, w: int, *, due: bool) -> State:
    """Undo the claim if it is still valid."""
    before, record = state.workers[w].before, state.record
    if before and record.status == "sending" and record.lease == w:
        record = record._replace(status=before.status, attempts=before.attempts, lease=before.lease, due=due)
    return state._replace(record=record)


def _time_of_worker(state: State, w: int) -> Steps:
    worker, record = state.workers[w], state.record
    if worker.stage in IN_FLIGHT and not worker.past_lease:
        ended = record._replace(due=record.due or record.lease == w)
        late = _with_worker(state._replace(record=ended), w, worker._replace(past_lease=True))
        yield Step(Kind.LEASE_ENDS, w), _allow_repeats_of_unguarded(late)
    may_hold = worker.stage in IN_FLIGHT[1:] and worker.past_lease and not worker.past_lock
    if may_hold or (worker.stage == Stage.SETTLED and state.lock == w):
        later = _with_worker(state, w, worker._replace(past_lock=may_hold))
        yield (
            Step(Kind.LOCK_ENDS, w),
            _allow_repeats_of_unguarded(later._replace(lock=None if state.lock == w else state.lock)),
        )


def _time(state: State) -> Steps:
    record = state.record
    leased = record.lease not in (None, GONE) and not state.workers[record.lease or 0].past_lease
    if record.status in SCHEDULED and not record.due and not leased:
        yield Step(Kind.BECOME_DUE), state._replace(record=record._replace(due=True))
    if state.lock == GONE:
        yield Step(Kind.ORPHAN_LOCK_ENDS), state._replace(lock=None)


def _redis(state: State) -> Steps:
    if state.redis_away:
        yield Step(Kind.REDIS_RETURNS), state._replace(redis_away=False)
    elif state.redis_faults:
        faulty = state._replace(redis_faults=state.redis_faults - 1)
        yield Step(Kind.REDIS_FAILS), faulty._replace(redis_away=True)
        if state.lock is not None:
            failed = tuple(other._replace(lock_failed=other.stage in IN_FLIGHT) for other in state.workers)
            yield (
                Step(Kind.REDIS_RESTARTS_EMPTY),
                _allow_repeats_of_unguarded(faulty._replace(lock=None, workers=failed)),
            )


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


def _with_worker(state: State, w: int, worker: Worker) -> State:
    return state._replace(workers=(*state.workers[:w], worker, *state.workers[w + 1 :]))


def _store_result(state: State, w: int) -> State:
    """The result is stored; the worker may still hold the lock."""
    if state.lock != w:
        return _make_idle(state, w)
    return _with_worker(_retire_tokens(state, w)._replace(lock=w), w, Worker(Stage.SETTLED))


def _make_idle(state: State, w: int, *, crashed: bool = False) -> State:
    """Make the worker idle. Its lock is released unless it crashed or Redis is unavailable."""
    if state.lock == w and not crashed and not state.redis_away:
        state = state._replace(lock=None)
    return _close_rounds(_with_worker(_retire_tokens(state, w), w, Worker()))


def _retire_tokens(state: State, w: int) -> State:
    """Replace the worker's tokens, which are never used again, by GONE. This keeps the model finite."""

    def renamed(record: Record) -> Record:
        return record._replace(lease=GONE) if record.lease == w else record

    return state._replace(
        record=renamed(state.record),
        lock=GONE if state.lock == w else state.lock,
        workers=tuple(other._replace(before=other.before and renamed(other.before)) for other in state.workers),
        sends=tuple(sorted(send._replace(worker=GONE) if send.worker == w else send for send in state.sends)),
    )


def _close_rounds(state: State) -> State:
    """Forget the counts of rounds in which nothing can happen any more. This keeps the model small."""
    open_rounds = {state.record.round} | {worker.round for worker in state.workers if worker.stage != Stage.IDLE}
    made = tuple(number if at in open_rounds else 0 for at, number in enumerate(state.made))
    return state._replace(made=made, sends=tuple(send for send in state.sends if send.round in open_rounds))


def _allow_repeat(state: State, w: int) -> State:
    """Allow a repetition of this worker's accepted messages: nobody can know that they arrived."""
    return state._replace(sends=tuple(send for send in state.sends if send.worker != w))


def _allow_repeats_of_unguarded(state: State) -> State:
    for w, worker in enumerate(state.workers):
        if worker.unguarded:
            state = _allow_repeat(state, w)
    return state
