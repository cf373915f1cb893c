"""The values of the model: the state of one notification and its workers, and the steps that can happen."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

GONE = -1
"""Stands for any worker whose token is never used again: it crashed, or it has finished."""
ORPHANED = -2
"""The same, while the lock of its claim is still in Redis."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The guards of the protocol that are on, and the bounds of the model.

    claim_is_atomic: a claim reads and takes the row in one step. locked: each claim takes a Redis lock, and whoever
    takes over an expired lease asks for the lock of the former claim. rechecked: the claim of an expired lease is
    checked again after that. fenced: a failure needs its lease token to settle. locks_are_short: a lock lasts at most
    twice as long as its lease. The other fields are bounds; crashes and redis_faults are per run.
    """

    claim_is_atomic: bool = True
    locked: bool = True
    rechecked: bool = True
    fenced: bool = True
    locks_are_short: bool = True
    workers: int = 2
    max_attempts: int = 2
    replays: int = 1
    crashes: int = 1
    redis_faults: int = 1


class StepSource(enum.Enum):
    """What causes a step."""

    WORK = enum.auto()
    TIME = enum.auto()
    FAULT = enum.auto()
    OPERATOR = enum.auto()


class Kind(enum.Enum):
    """The steps that can happen. The text is for the trace; `{}` is the worker."""

    def __init__(self, text: str, source: StepSource) -> None:
        self.text = text
        self.source = source

    LOOK = "{} sees that the row is due", StepSource.WORK
    CLAIM = "{} claims the row", StepSource.WORK
    TAKE_LOCK = "{} takes the lock of its claim", StepSource.WORK
    CONTINUE_WITHOUT_LOCK = "{} finds Redis unavailable and continues without a lock", StepSource.WORK
    FIND_LOCK_GONE = "{} finds the lock of the former claim gone", StepSource.WORK
    FIND_LOCK_HELD = "{} finds the lock of the former claim held and releases its own claim", StepSource.WORK
    CANNOT_FIND_LOCK = "{} finds Redis unavailable and takes the lock of the former claim as gone", StepSource.WORK
    SKIP_LOCK = "{} continues without a lock, because locks are switched off", StepSource.WORK
    RELEASE_SECOND_RECOVERY = "{} has another row to recover and releases this claim", StepSource.WORK
    RECORD_LOST_ATTEMPT = "{} finds its claim still valid and records the lost attempt", StepSource.WORK
    FIND_CLAIM_INVALID = "{} finds its claim no longer valid and stops", StepSource.WORK
    HOLD = "{} finds the endpoint paused or at its limit and releases its claim", StepSource.WORK
    FIND_LEASE_TOO_SHORT = "{} finds too little of its lease left and releases its claim", StepSource.WORK
    FIND_BUDGET_SPENT = "{} finds no attempt left and sends nothing", StepSource.WORK
    BEGIN = "{} begins to send", StepSource.WORK
    BE_ACCEPTED = "the receiver accepts the message of {}", StepSource.WORK
    BE_PUT_OFF = "the receiver asks {} to try later", StepSource.WORK
    BE_REFUSED = "the receiver refuses the message of {} for good", StepSource.WORK
    BE_SKIPPED = "the provider skips the message of {}", StepSource.WORK
    SETTLE_SUCCESS = "{} settles its success", StepSource.WORK
    SETTLE_FAILURE = "{} settles its failure", StepSource.WORK

    LEASE_ENDS = "the lease of {} ends", StepSource.TIME
    LOCK_ENDS = "the lock of {} ends", StepSource.TIME
    ORPHAN_LOCK_ENDS = "the locks of former workers end", StepSource.TIME
    BECOME_DUE = "the row becomes due", StepSource.TIME

    LOSE_ANSWER = "the receiver accepts the message of {}, and the answer is lost", StepSource.FAULT
    CRASH = "{} crashes", StepSource.FAULT
    REDIS_FAILS = "Redis becomes unavailable", StepSource.FAULT
    REDIS_RETURNS = "Redis is available again", StepSource.FAULT
    REDIS_RESTARTS_EMPTY = "Redis restarts empty", StepSource.FAULT

    REPLAY = "an operator replays the record", StepSource.OPERATOR
    FORCE_REPLAY = "an operator replays the record by force", StepSource.OPERATOR
    CANCEL = "an operator cancels the record", StepSource.OPERATOR


class Step(NamedTuple):
    """One step, by one worker if it concerns one."""

    kind: Kind
    worker: int = GONE

    def __str__(self) -> str:
        return self.kind.text.format(f"worker {'ABCDEFGH'[self.worker]}")


class Stage(enum.IntEnum):
    """How far a worker is with its delivery."""

    IDLE = 0
    LOOKED = 1
    """Has read that the row is due and has not taken it yet. Only if the claim is not atomic."""
    CLAIMED = 2
    LOCKED = 3
    """Has taken over an expired lease and locked its claim, and has not asked for the lock of the former claim yet."""
    UNLOCKED = 4
    """Has found the lock of the former claim gone. The former worker may have settled meanwhile."""
    READY = 5
    SENDING = 6
    """Has checked its lease; bytes may have been sent."""
    ANSWERED = 7
    """Has a result that is not stored yet."""


IN_FLIGHT = (Stage.CLAIMED, Stage.LOCKED, Stage.UNLOCKED, Stage.READY, Stage.SENDING, Stage.ANSWERED)


class Record(NamedTuple):
    """The row."""

    status: str = "pending"
    attempts: int = 0
    round: int = 0
    lease: int | None = None
    """The worker whose token it has; GONE or ORPHANED if that worker has ended."""
    due: bool = True
    cancelled: bool = False


class Worker(NamedTuple):
    """One worker and its knowledge."""

    stage: Stage = Stage.IDLE
    before: Record | None = None
    """The row as it was when it was claimed."""
    answer: str = ""
    """The outcome to settle."""
    holds: bool = False
    """The lock of its claim is in Redis."""
    past_lease: bool = False
    past_lock: bool = False
    """Its lock has ended, or would have ended. The lock lasts longer than the lease."""
    lock_failed: bool = False
    """Redis was unavailable or lost its data, so its lock does not stop other workers."""

    @property
    def round(self) -> int:
        """The round it claimed in."""
        return self.before.round if self.before else 0

    @property
    def unguarded(self) -> bool:
        """Both of its guards have ended, so another worker may do the same."""
        return self.past_lock or (self.past_lease and self.lock_failed)


class Send(NamedTuple):
    """One message that the receiver accepted and that must not be sent again."""

    round: int
    worker: int
    """The worker that has to settle it; GONE once it is settled."""


class State(NamedTuple):
    """The state of the record, Redis and all workers at one moment."""

    record: Record = Record()
    redis_away: bool = False
    workers: tuple[Worker, ...] = ()
    sends: tuple[Send, ...] = ()
    """Without those whose worker crashed, lost the response or lost both guards before it settled."""
    made: tuple[int, ...] = (0,)
    """Attempts begun, by round."""
    crashes: int = 0
    redis_faults: int = 0
