"""The values of the model: what the world of one notification looks like, and the names of what may happen in it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

GONE = -1
"""Stands for any worker whose token nobody will use again: it crashed, or it is done."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which guards of the protocol are on, and how far the model goes.

    claim_is_atomic: looking and taking are one step. locked: the Redis lock is taken before a send. rechecked: a
    claim of somebody's expired lease is looked at once more under the lock. fenced: a failure needs its lease token
    to settle. The rest are bounds; crashes and redis_faults per run.
    """

    claim_is_atomic: bool = True
    locked: bool = True
    rechecked: bool = True
    fenced: bool = True
    workers: int = 2
    max_attempts: int = 2
    replays: int = 1
    crashes: int = 1
    redis_faults: int = 1


class Sort(enum.Enum):
    """Who makes a step happen."""

    WORK = enum.auto()
    TIME = enum.auto()
    FAULT = enum.auto()
    OPERATOR = enum.auto()


class Kind(enum.Enum):
    """What may happen; the text is the trace's, `{}` the worker."""

    def __init__(self, text: str, sort: Sort) -> None:
        self.text = text
        self.sort = sort

    LOOK = "{} sees that the row is due", Sort.WORK
    CLAIM = "{} claims the row", Sort.WORK
    TAKE_LOCK = "{} takes the lock", Sort.WORK
    FIND_KEY_HELD = "{} finds the key held and gives the row back", Sort.WORK
    DO_WITHOUT_LOCK = "{} finds Redis away and goes on without a lock", Sort.WORK
    SKIP_LOCK = "{} goes on, as locks are switched off", Sort.WORK
    LEAVE_TO_OTHERS = "{} has another row to recover and gives this one back", Sort.WORK
    NOTE_LOST = "{} finds its claim still good and notes the lost attempt", Sort.WORK
    FIND_CLAIM_GONE = "{} finds that its claim stands no more and lets go", Sort.WORK
    WAKE_LATE = "{} finds too little of its lease left and gives the row back", Sort.WORK
    FIND_BUDGET_SPENT = "{} finds no attempt left and sends nothing", Sort.WORK
    BEGIN = "{} begins to send", Sort.WORK
    BE_ACCEPTED = "the receiver accepts the message of {}", Sort.WORK
    BE_PUT_OFF = "the receiver asks {} to try later", Sort.WORK
    BE_REFUSED = "the receiver refuses the message of {} for good", Sort.WORK
    BE_SKIPPED = "the provider tells {} that nothing is to be sent", Sort.WORK
    SETTLE_SUCCESS = "{} settles its success", Sort.WORK
    SETTLE_FAILURE = "{} settles its failure", Sort.WORK
    RELEASE = "{} gives back the lock", Sort.WORK

    LEASE_ENDS = "the lease of {} runs out", Sort.TIME
    LOCK_ENDS = "the lock of {} runs out", Sort.TIME
    ORPHAN_LOCK_ENDS = "the lock of a worker that is gone runs out", Sort.TIME
    BECOME_DUE = "the row becomes due", Sort.TIME

    LOSE_ANSWER = "the receiver accepts the message of {}, and the answer is lost", Sort.FAULT
    CRASH = "{} crashes", Sort.FAULT
    REDIS_GOES = "Redis goes away", Sort.FAULT
    REDIS_RETURNS = "Redis is back", Sort.FAULT
    REDIS_RESTARTS_EMPTY = "Redis restarts empty", Sort.FAULT

    REPLAY = "an operator replays the record", Sort.OPERATOR
    FORCE_REPLAY = "an operator replays the record by force", Sort.OPERATOR
    CANCEL = "an operator cancels the record", Sort.OPERATOR


class Step(NamedTuple):
    """One thing that happens, to or by one worker if it is about one."""

    kind: Kind
    worker: int = GONE

    def __str__(self) -> str:
        return self.kind.text.format(f"worker {'ABCDEFGH'[self.worker]}")


class Stage(enum.IntEnum):
    """Where a worker is."""

    IDLE = 0
    LOOKED = 1
    """Has seen the row due and not taken it yet; only where the claim is not atomic."""
    CLAIMED = 2
    LOCKED = 3
    """Has the lock, and the claim of a lease that had expired, which may have been settled meanwhile."""
    READY = 4
    SENDING = 5
    """Has found its lease good; bytes may be on the wire."""
    ANSWERED = 6
    """Has an answer that is not written down yet."""
    SETTLED = 7
    """Has written it down and still holds the lock."""


IN_FLIGHT = (Stage.CLAIMED, Stage.LOCKED, Stage.READY, Stage.SENDING, Stage.ANSWERED)


class Record(NamedTuple):
    """The row."""

    status: str = "pending"
    attempts: int = 0
    round: int = 0
    lease: int | None = None
    """Whose token it carries."""
    due: bool = True
    cancelled: bool = False


class Worker(NamedTuple):
    """One worker, and what it knows."""

    stage: Stage = Stage.IDLE
    before: Record | None = None
    """The row as it was when it was claimed."""
    answer: str = ""
    """The outcome to settle."""
    past_lease: bool = False
    past_lock: bool = False
    """Its lock has, or would have, run out: so late is it. The lock outlives the lease."""
    lock_failed: bool = False
    """Redis was away or emptied, so its lock keeps nobody off."""

    @property
    def round(self) -> int:
        """The round it claimed in."""
        return self.before.round if self.before else 0

    @property
    def unguarded(self) -> bool:
        """It overslept both guards, by its own fault or Redis's; what it does now may be done by another too."""
        return self.past_lock or (self.past_lease and self.lock_failed)


class Send(NamedTuple):
    """One message the receiver accepted, and nobody has an excuse for repeating."""

    round: int
    worker: int
    """Who has yet to settle it; GONE once it is settled."""


class State(NamedTuple):
    """The world at one moment."""

    record: Record = Record()
    lock: int | None = None
    """Who holds the key in Redis."""
    redis_away: bool = False
    workers: tuple[Worker, ...] = ()
    sends: tuple[Send, ...] = ()
    """Without those whose worker crashed, lost the answer or was unguarded before it settled."""
    made: tuple[int, ...] = (0,)
    """Attempts begun in each round."""
    crashes: int = 0
    redis_faults: int = 0
