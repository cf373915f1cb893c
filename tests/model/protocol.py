"""The protocol as a pure function: every step that can happen next, and the state after it.

Claim, lock, send and settle are those of `notifications/delivery`; each step is one of its statements. Time is a choice
of the model: a lease or a lock can end at any moment, but no lock ends before its lease, and no lease that was taken
over ends before the lock of the claim before it, because a lock lasts at most twice as long as its lease.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.world import GONE, IN_FLIGHT, ORPHANED, Kind, Record, Rules, Send, Stage, State, Step, Worker

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
                yield _find_former_lock(state, w, rules)
            case Stage.UNLOCKED:
                yield _recheck(state, w)
            case Stage.READY:
                yield from _begin(state, w, rules)
            case Stage.SENDING:
                yield from _answer(state, w)
            case Stage.ANSWERED:
                yield _settle(state, w, rules)
        yield from _time_of_worker(state, w, rules)
        if worker.stage >= Stage.CLAIMED and state.crashes:
            crashed = _make_idle(_allow_repeat(state, w), w)
            yield Step(Kind.CRASH, w), crashed._replace(crashes=state.crashes - 1)
    yield from _time(state, rules)
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
    unlocked = Stage.UNLOCKED if recovers and rules.rechecked else Stage.READY
    if recovers:
        yield Step(Kind.RELEASE_SECOND_RECOVERY, w), _make_idle(_release_claim(state, w, due=True), w)
    if not rules.locked:
        yield Step(Kind.SKIP_LOCK, w), _with_worker(state, w, worker._replace(stage=unlocked))
        return
    locked = worker._replace(stage=Stage.LOCKED if recovers else Stage.READY)
    if state.redis_away:
        blind = _with_worker(state, w, locked._replace(lock_failed=True))
        yield Step(Kind.CONTINUE_WITHOUT_LOCK, w), _allow_repeats_of_unguarded(blind)
    else:
        yield Step(Kind.TAKE_LOCK, w), _with_worker(state, w, locked._replace(holds=True))


def _find_former_lock(state: State, w: int, rules: Rules) -> tuple[Step, State]:
    worker = state.workers[w]
    former = worker.before.lease if worker.before else None
    unlocked = worker._replace(stage=Stage.UNLOCKED if rules.rechecked else Stage.READY)
    if state.redis_away:  # no lock stops this worker
        others = tuple(other._replace(lock_failed=other.stage in IN_FLIGHT) for other in state.workers)
        blind = _with_worker(state._replace(workers=others), w, unlocked._replace(lock_failed=True))
        return Step(Kind.CANNOT_FIND_LOCK, w), _allow_repeats_of_unguarded(blind)
    if former == ORPHANED or (former not in (None, GONE) and state.workers[former or 0].holds):
        return Step(Kind.FIND_LOCK_HELD, w), _make_idle(_release_claim(state, w, due=False), w)
    return Step(Kind.FIND_LOCK_GONE, w), _with_worker(state, w, unlocked)


def _recheck(state: State, w: int) -> tuple[Step, State]:
    if state.record.status == "sending" and state.record.lease == w:
        return Step(Kind.RECORD_LOST_ATTEMPT, w), _with_worker(state, w, state.workers[w]._replace(stage=Stage.READY))
    return Step(Kind.FIND_CLAIM_INVALID, w), _make_idle(state, w)


def _begin(state: State, w: int, rules: Rules) -> Steps:
    worker = state.workers[w]
    before = worker.before or state.record
    if before.attempts >= rules.max_attempts:
        answered = worker._replace(stage=Stage.ANSWERED, answer="permanent_fail")
        yield Step(Kind.FIND_BUDGET_SPENT, w), _with_worker(state, w, answered)
        return
    yield Step(Kind.HOLD, w), _make_idle(_release_claim(state, w, due=False, held=True), w)
    yield Step(Kind.FIND_LEASE_TOO_SHORT, w), _make_idle(_release_claim(state, w, due=True), w)
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
    return Step(kind, w), _make_idle(state._replace(record=record), w)


def _release_claim(state: State, w: int, *, due: bool, held: bool = False) -> State:
    """Undo the claim if it is still valid. A record that is held has no lease: its lost attempt was recorded."""
    before, record = state.workers[w].before, state.record
    if before and record.status == "sending" and record.lease == w:
        if held and before.status == "sending":
            before = before._replace(status="failed", lease=None)
        record = record._replace(status=before.status, attempts=before.attempts, lease=before.lease, due=due)
    return state._replace(record=record)


def _time_of_worker(state: State, w: int, rules: Rules) -> Steps:
    worker, record = state.workers[w], state.record
    taken_over = record.lease == w and _former_lock_lasts(state, w, rules)
    if worker.stage in IN_FLIGHT and not worker.past_lease and not taken_over:
        ended = record._replace(due=record.due or record.lease == w)
        late = _with_worker(state._replace(record=ended), w, worker._replace(past_lease=True))
        yield Step(Kind.LEASE_ENDS, w), _allow_repeats_of_unguarded(late)
    if worker.stage in IN_FLIGHT[1:] and worker.past_lease and not worker.past_lock:
        later = _with_worker(state, w, worker._replace(past_lock=True, holds=False))
        yield Step(Kind.LOCK_ENDS, w), _allow_repeats_of_unguarded(later)


def _time(state: State, rules: Rules) -> Steps:
    record = state.record
    leased = record.lease not in (None, GONE, ORPHANED) and not state.workers[record.lease or 0].past_lease
    taken_over = record.status == "sending" and _former_lock_lasts(state, record.lease, rules)
    if record.status in SCHEDULED and not record.due and not leased and not taken_over:
        yield Step(Kind.BECOME_DUE), state._replace(record=record._replace(due=True))
    if _orphaned_locks(state):
        yield Step(Kind.ORPHAN_LOCK_ENDS), _rename_tokens(state, ORPHANED, GONE)


def _former_lock_lasts(state: State, lease: int | None, rules: Rules) -> bool:
    """Return whether the lock of a claim lasts whose lease ended before this one began."""
    return rules.locks_are_short and any(
        other.holds and other.past_lease and w != lease and other.stage in IN_FLIGHT
        for w, other in enumerate(state.workers)
    )


def _redis(state: State) -> Steps:
    if state.redis_away:
        yield Step(Kind.REDIS_RETURNS), state._replace(redis_away=False)
    elif state.redis_faults:
        faulty = state._replace(redis_faults=state.redis_faults - 1)
        yield Step(Kind.REDIS_FAILS), faulty._replace(redis_away=True)
        if _orphaned_locks(state) or any(worker.holds for worker in state.workers):
            failed = tuple(other._replace(lock_failed=other.stage in IN_FLIGHT, holds=False) for other in state.workers)
            empty = _rename_tokens(faulty._replace(workers=failed), ORPHANED, GONE)
            yield Step(Kind.REDIS_RESTARTS_EMPTY), _allow_repeats_of_unguarded(empty)


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


def _make_idle(state: State, w: int) -> State:
    """Make the worker idle. Nobody deletes the lock of its claim: no row under that claim is left, or it crashed."""
    token = ORPHANED if state.workers[w].holds else GONE
    return _close_rounds(_with_worker(_rename_tokens(state, w, token), w, Worker()))


def _rename_tokens(state: State, token: int, by: int) -> State:
    """Replace a token that is never used again. This keeps the model finite."""

    def renamed(record: Record) -> Record:
        return record._replace(lease=by) if record.lease == token else record

    return state._replace(
        record=renamed(state.record),
        workers=tuple(other._replace(before=other.before and renamed(other.before)) for other in state.workers),
        sends=tuple(sorted(send._replace(worker=GONE) if send.worker == token else send for send in state.sends)),
    )


def _orphaned_locks(state: State) -> bool:
    befores = [worker.before for worker in state.workers if worker.before]
    return any(record.lease == ORPHANED for record in [state.record, *befores])


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
