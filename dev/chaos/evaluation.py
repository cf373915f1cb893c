"""What became of everything, counted at the receiver. Pure: facts in, figures out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from dev.chaos.environment import LEASE, LOCK_TTL
from dev.chaos.faults import Event
from dev.chaos.load import EXPECTED
from dev.faults.tracing import HEADER
from notifications.testing.sandbox.journal import Delivery

SLACK = 0.5
"""Seconds by which two notes of one moment may differ."""
IN_FLIGHT = 2.5
"""Seconds that a request may take, and a little."""
REDIS_FAULTS = ("redis-kill", "redis-freeze", "redis-clients", "redis-memory", "redis-readonly", "redis-link")
OPEN = ("pending", "sending", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What was promised, what the table says, what the receiver saw, and what was broken."""

    promised: set[str]
    undone: set[str]
    users: Mapping[int, str]
    records: Sequence[tuple[int, str, str, int]]
    """id, dedupe key, status, user id"""
    attempts: Sequence[tuple[int, str, str, str, float, float]]
    """record id, outcome, error code, worker, started at, seconds it took"""
    deliveries: Sequence[Delivery]
    """Those that the receiver accepted."""
    events: Sequence[Event]
    drivers: set[int]


@dataclass(slots=True, kw_only=True)
class SoakResult:
    """The outcome of a soak."""

    requested: int = 0
    delivered: int = 0
    lost: int = 0
    """Promised and neither sent nor, where the endpoint is dead or missing, dead or skipped."""
    stuck: int = 0
    """Not in a final status though nothing was broken any more."""
    phantoms: int = 0
    """Stored though rolled back, or accepted by the receiver without a record."""
    duplicates_in_window: int = 0
    duplicates_outside_window: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    """What put each duplicate into the window."""
    oddities: list[str] = field(default_factory=list)
    """Each thing that should not be, in words."""


def judge(facts: Observations) -> SoakResult:
    """Count, and find the cause of each duplicate.

    Args:
        facts: everything that is known.
    """
    figures = SoakResult(requested=len(facts.records))
    by_key = {key: (record, status, user) for record, key, status, user in facts.records}
    taken: dict[int, list[Delivery]] = defaultdict(list)
    for delivery in facts.deliveries:
        taken[delivery.notification_id or 0].append(delivery)
    figures.delivered = len(taken)
    for key in facts.promised - by_key.keys():
        figures.lost += 1
        figures.oddities.append(f"{key} was promised and is not stored")
    for key, (record, status, user) in by_key.items():
        wanted = EXPECTED[facts.users[user]]
        if key in facts.undone:
            figures.phantoms += 1
            figures.oddities.append(f"{key} was rolled back and is stored")
        if status in OPEN:
            figures.stuck += 1
            figures.oddities.append(f"record {record} is stuck in {status}")
        elif status != wanted or (status == "sent" and record not in taken):
            figures.lost += 1
            figures.oddities.append(f"record {record} is {status}; the receiver took it {len(taken[record])} times")
    for record in taken.keys() - {record for record, *_rest in facts.records}:
        figures.phantoms += 1
        figures.oddities.append(f"record {record} does not exist and was delivered")
    attempts: dict[int, list[tuple[int, str, str, str, float, float]]] = defaultdict(list)
    for attempt in facts.attempts:
        attempts[attempt[0]].append(attempt)
    for record, deliveries in taken.items():
        for first, second in pairwise(deliveries):
            cause = _cause(first, second, attempts[record], facts)
            if cause:
                figures.duplicates_in_window += 1
                figures.causes[cause] += 1
            else:
                figures.duplicates_outside_window += 1
                figures.oddities.append(f"record {record}: {_story(first, second, attempts[record], facts)}")
    return figures


def _cause(
    first: Delivery, second: Delivery, attempts: Iterable[tuple[int, str, str, str, float, float]], facts: Observations
) -> str:
    """Return what kept the first delivery's result from being written down in time, or nothing if nothing did."""
    sender, next_sender = _sender(first), _sender(second)

    def hit(*names: str, since: float = SLACK, pid: int | None = None, at_least: float = 0.0) -> bool:
        return any(
            event.name in names
            and event.began <= second.at
            and (event.ended or event.began) >= first.at - since
            and (pid is None or pid in event.pids)
            and event.ended - event.began >= at_least
            for event in facts.events
        )

    mine = [item for item in attempts if item[3].endswith(f":{sender}") and item[4] - SLACK <= first.at]
    own = max(mine, key=lambda item: item[4], default=None)
    if own and own[1] == "temporary_fail" and own[2] in ("provider_timeout", "network_error"):
        # The receiver took it, but its answer never came.
        broken = hit("receiver-link", "receiver", since=IN_FLIGHT) or hit(
            "short-stop", "long-stop", since=IN_FLIGHT, pid=sender
        )
        return "answer lost" if broken else "answer late"
    if hit("kill", pid=sender):
        return "sender killed"
    if hit("long-stop", since=IN_FLIGHT, pid=sender):
        return "sender stalled past lease and lock"
    if hit("long-stop", since=IN_FLIGHT, pid=next_sender):
        return "the second sender stalled past lease and lock before its send"
    database = hit("database-link", "database-crash", "database-backends")
    overslept = hit("short-stop", since=IN_FLIGHT, pid=sender)
    if database or overslept:
        late = "PostgreSQL away past" if database else "sender stalled past"
        if second.at - first.at > LOCK_TTL - IN_FLIGHT:
            return f"{late} lease and lock"
    elif hit("short-stop", pid=next_sender, at_least=LEASE):
        late = "the second sender stalled in its send past"  # it was overtaken in its sleep
    else:
        return ""
    if {sender, next_sender} & facts.drivers:
        return f"{late} the lease, no lock taken by the driver"
    if hit(*REDIS_FAULTS, since=LEASE + IN_FLIGHT):
        return f"{late} the lease, lock lost with Redis"
    return ""


def _sender(delivery: Delivery) -> int:
    return int(delivery.headers.get(HEADER, 0))


def _story(
    first: Delivery, second: Delivery, attempts: Sequence[tuple[int, str, str, str, float, float]], facts: Observations
) -> str:
    """Return what happened around a duplicate that nothing explains."""

    def who(delivery: Delivery) -> str:
        return f"{'driver' if _sender(delivery) in facts.drivers else 'worker'} {_sender(delivery)}"

    around = [
        f"{event.name} {sorted(event.pids)} {event.began - first.at:+.2f} for {event.ended - event.began:.2f}"
        for event in facts.events
        if event.began <= second.at and (event.ended or event.began) >= first.at - LOCK_TTL
    ]
    tries = [f"{item[1]} {item[2]} {item[3]} {item[4] - first.at:+.2f} took {item[5]:.2f}" for item in attempts]
    return (
        f"delivered by {who(first)} and {second.at - first.at:.2f} s later by {who(second)};"
        f" attempts: {'; '.join(tries)}; faults: {'; '.join(around) or 'none'}"
    )
