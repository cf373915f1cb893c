"""Fairness: whose records a drain takes if more are due than it can send at the same time.

The slots of a drain are shared by recipients. A slow endpoint, or a long queue of one recipient, must not delay others.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from django.db import connection, transaction
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.delivery.claim import Claimed
from notifications.sql import FORBID_SORT, PRIORITY_STEP_SECONDS, load_sql
from notifications.states import Priority
from notifications.user_keys import UserKey

NEWEST_DIVISOR = 4
"""This part of a claim is for the newest records, so that a new message does not wait for a queue: a quarter."""
LOOK_FACTOR = 4
"""Records at the old end of the queue that are looked at, for each free slot."""

_LOOK = load_sql("notifications.delivery", "look_at_due")

ShareKey = str


class Candidate(NamedTuple):
    """A due record that may be claimed."""

    record_id: int
    channel: str
    priority: int
    shares: tuple[ShareKey, ...]
    """Whose shares it counts for."""
    due: float
    """Unix time at which it became due."""
    turn: float
    """Its place among the oldest (`notifications.sql.TURN`): a higher priority counts as due earlier."""
    newest: bool
    """Whether it is at the new end of the queue. A record may be at both ends."""
    ordered: bool = False
    """Whether it has an order key. Then it has no share of the newest: it may have to wait for an earlier one."""

    @property
    def newness(self) -> float:
        """Its place among the newest: a higher priority counts as due later."""
        return self.due + PRIORITY_STEP_SECONDS * self.priority


def share_keys(user_id: UserKey | None, channel: str, endpoint_id: int | None) -> tuple[ShareKey, ...]:
    """Return whose shares a record counts for: its endpoint's and its recipient's.

    Args:
        user_id: The recipient; None if the endpoint belongs to nobody, and is the recipient itself.
        channel: Name of the channel.
        endpoint_id: The endpoint that the record names; None for the user's endpoint without a label.
    """
    endpoint = f"endpoint {user_id} {channel}" if endpoint_id is None else f"endpoint {endpoint_id}"
    return (endpoint,) if user_id is None else (endpoint, f"recipient {user_id}")


def look_at_due(
    channels: Sequence[str],
    free: int,
    clock: Clock | None,
    since: Mapping[int, float] = MappingProxyType({}),
    *,
    before: str = "",
) -> list[Candidate]:
    """Return the records at both ends of the queue. Claims nothing.

    Args:
        channels: Names of the channels.
        free: Number of free slots.
        clock: Clock of a test; None for PostgreSQL's clock.
        since: Where the old end of the queue of each priority begins, as in `claim`.
        before: Statement that runs just before; it ends with a semicolon.
    """
    parameters = {
        "now": clock() if clock else None,
        "channels": list(channels),
        "priorities": Priority.values,
        "oldest": free * LOOK_FACTOR,
        "newest": free,
        "since": [since.get(priority) for priority in Priority.values],
    }
    # The statements go to the server in one message, which is one transaction and saves three round trips. A driver
    # that binds parameters on the server takes one statement at a time.
    one_by_one = connection.settings_dict["OPTIONS"].get("server_side_binding")
    with transaction.atomic() if one_by_one else contextlib.nullcontext(), connection.cursor() as cursor:
        if one_by_one:
            cursor.execute(before + FORBID_SORT)
        cursor.execute(_LOOK if one_by_one else f"{before}{FORBID_SORT}{_LOOK}", parameters)
        while is_psycopg3 and cursor.nextset():
            pass  # psycopg 3 returns the result of each statement, psycopg2 that of the last one
        return [
            Candidate(pk, channel, priority, share_keys(user, channel, endpoint), due, turn, newest, ordered)
            for pk, channel, priority, user, endpoint, due, turn, ordered, newest in cursor.fetchall()
        ]


class Shares:
    """Counts the slots that each endpoint and each recipient has in one drain, and chooses whose records come next.

    Every process shares its own slots, so both have a share of all of them as well.

    Args:
        options: For `send_slots`, `recipient_share` and `slot_reserve`.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self.slots = options.send_slots
        self.share = max(1, int(self.slots * options.recipient_share))
        """Slots that one endpoint or recipient gets before all others that wait have theirs."""
        self.ceiling = max(1, self.slots - int(self.slots * options.slot_reserve))
        """Slots that are given away without a look at who else waits."""
        self._in_flight = 0
        self._used: Counter[ShareKey] = Counter()
        self.left: dict[int, float] = {}
        """Where the queue of each priority begins after the last choice: when its first record that is left became
        due. A priority that had none is missing."""
        self._newest_credit = 0.0
        """What the newest records have not used of their part yet. Slots often become free one by one."""

    def take(self, rows: Iterable[Claimed]) -> None:
        """Count slots of records that are sent now."""
        for row in rows:
            self._in_flight += 1
            self._used.update(share_keys(row.user_id, row.channel, row.endpoint_id))

    def give_back(self, rows: Iterable[Claimed]) -> None:
        """Count slots as free again."""
        for row in rows:
            self._in_flight -= 1
            for key in share_keys(row.user_id, row.channel, row.endpoint_id):
                self._used[key] -= 1
                if self._used[key] <= 0:
                    del self._used[key]

    def choose(self, candidates: Sequence[Candidate], free: int) -> list[Candidate]:
        """Return the records to claim.

        A quarter of the slots is for the newest records without an order key, the rest for the oldest, as long as their
        endpoints and recipients are within their share. Slots that are left go to those above their share, but not the
        reserve.

        Args:
            candidates: What `look_at_due` returned.
            free: Number of free slots.
        """
        newest = sorted(
            (item for item in candidates if item.newest and not item.ordered),
            key=lambda item: (item.newness, item.record_id),
            reverse=True,
        )
        oldest = sorted((item for item in candidates if not item.newest), key=lambda item: (item.turn, item.record_id))
        used = self._used.copy()
        chosen: dict[int, Candidate] = {}

        def pick(items: Iterable[Candidate], limit: int, cap: int) -> None:
            for item in items:
                if len(chosen) >= limit:
                    return
                if item.record_id not in chosen and all(used[key] < cap for key in item.shares):
                    chosen[item.record_id] = item
                    used.update(item.shares)

        self._newest_credit = min(self._newest_credit + free / NEWEST_DIVISOR, float(free))
        pick(newest, int(self._newest_credit), self.share)
        self._newest_credit -= len(chosen)
        pick(oldest, free, self.share)
        pick(newest, free, self.share)
        pick(oldest, min(free, self.ceiling - self._in_flight), self.slots)
        self.left = {item.priority: item.due for item in oldest}  # the last one of each priority
        self.left |= {item.priority: item.due for item in reversed(oldest) if item.record_id not in chosen}
        return list(chosen.values())
