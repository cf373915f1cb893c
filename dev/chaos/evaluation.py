"""Evaluate a soak from what the receiver counted. Pure: observations in, result out."""

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

CLOCK_TOLERANCE_SECONDS = 0.5
"""Two clocks may give one moment times that differ by this much."""
MAX_REQUEST_SECONDS = 2.5
"""The longest time a request may take, with a margin."""
REDIS_FAULTS = ("redis-kill", "redis-freeze", "redis-clients", "redis-memory", "redis-readonly", "redis-link")
OPEN_STATUSES = ("pending", "sending", "failed")


Attempt = tuple[int, str, str, str, float, float]
"""Record id, outcome, error code, worker, start as a Unix time, duration in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """The accepted requests, the stored records, the deliveries at the receiver, and the faults."""

    promised: set[str]
    undone: set[str]
    users: Mapping[int, str]
    records: Sequence[tuple[int, str, str, int]]
    """id, dedupe key, status, user id"""
    attempts: Sequence[Attempt]
    deliveries: Sequence[Delivery]
    """Deliveries that the receiver accepted."""
    events: Sequence[Event]
    drivers: set[int]


@dataclass(slots=True, kw_only=True)
class SoakResult:
    """The outcome of a soak."""

    requested: int = 0
    delivered: int = 0
    lost: int = 0
    """Requests that committed and did not reach the final status of their endpoint's kind."""
    stuck: int = 0
    """Records without a final status after the faults had ended."""
    unrequested: int = 0
    """Records of rolled-back requests, and deliveries without a record."""
    duplicates_in_window: int = 0
    duplicates_outside_window: int = 0
    causes: Counter[str] = field(default_factory=Counter)
    """The faults that explain duplicates, each with its count."""
    violations: list[str] = field(default_factory=list)
    """A description of each broken promise."""


def judge(observations: Observations) -> SoakResult:
    """Count broken promises, and find the cause of each duplicate.

    Args:
        observations: what the soak recorded.
    """
    result = SoakResult(requested=len(observations.records))
    by_key = {key: (record, status, user) for record, key, status, user in observations.records}
    deliveries_by_record: dict[int, list[Delivery]] = defaultdict(list)
    for delivery in observations.deliveries:
        deliveries_by_record[delivery.notification_id or 0].append(delivery)
    result.delivered = len(deliveries_by_record)
    for key in observations.promised - by_key.keys():
        result.lost += 1
        result.violations.append(f"{key} was promised and is not stored")
    for key, (record, status, user) in by_key.items():
        wanted = EXPECTED[observations.users[user]]
        if key in observations.undone:
            result.unrequested += 1
            result.violations.append(f"{key} was rolled back and is stored")
        if status in OPEN_STATUSES:
            result.stuck += 1
            result.violations.append(f"record {record} is stuck in {status}")
        elif status != wanted or (status == "sent" and record not in deliveries_by_record):
            result.lost += 1
            result.violations.append(
                f"record {record} is {status}; the receiver took it {len(deliveries_by_record[record])} times"
            )
    for record in deliveries_by_record.keys() - {record for record, *_rest in observations.records}:
        result.unrequested += 1
        result.violations.append(f"record {record} does not exist and was delivered")
    attempts: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in observations.attempts:
        attempts[attempt[0]].append(attempt)
    for record, deliveries in deliveries_by_record.items():
        for first, second in pairwise(deliveries):
            cause = _cause(first, second, attempts[record], observations)
            if cause:
                result.duplicates_in_window += 1
                result.causes[cause] += 1
            else:
                result.duplicates_outside_window += 1
                result.violations.append(
                    f"record {record}: {_describe_duplicate(first, second, attempts[record], observations)}"
                )
    return result


def _cause(
    first: Delivery,
    second: Delivery,
    attempts: Iterable[Attempt],
    observations: Observations,
) -> str:
    """Return the fault that kept the first result from being stored in time; empty if there was none."""
    sender, next_sender = _sender(first), _sender(second)

    def hit(
        *names: str, since: float = CLOCK_TOLERANCE_SECONDS, pid: int | None = None, min_seconds: float = 0.0
    ) -> bool:
        return any(
            event.name in names
            and event.began <= second.at
            and (event.ended or event.began) >= first.at - since
            and (pid is None or pid in event.pids)
            and event.ended - event.began >= min_seconds
            for event in observations.events
        )

    sender_attempts = [
        item for item in attempts if item[3].endswith(f":{sender}") and item[4] - CLOCK_TOLERANCE_SECONDS <= first.at
    ]
    attempt = max(sender_attempts, key=lambda item: item[4], default=None)
    if attempt and attempt[1] == "temporary_fail" and attempt[2] in ("provider_timeout", "network_error"):
        # The receiver accepted the request, but its response was lost.
        broken = hit("receiver-link", "receiver", since=MAX_REQUEST_SECONDS) or hit(
            "short-stop", "long-stop", since=MAX_REQUEST_SECONDS, pid=sender
        )
        return "answer lost" if broken else "answer late"
    # What arrives from a killed process was sent before its death: it waited at the receiver or on the way.
    if hit("kill", since=MAX_REQUEST_SECONDS, pid=sender):
        return "sender killed"
    if hit("long-stop", since=MAX_REQUEST_SECONDS, pid=sender):
        return "sender stalled past lease and lock"
    if hit("long-stop", since=MAX_REQUEST_SECONDS, pid=next_sender):
        return "the second sender stalled past lease and lock before its send"
    database = hit("database-link", "database-crash", "database-backends")
    sender_stopped = hit("short-stop", since=MAX_REQUEST_SECONDS, pid=sender)
    if database or sender_stopped:
        late = "PostgreSQL away past" if database else "sender stalled past"
        if second.at - first.at > LOCK_TTL - MAX_REQUEST_SECONDS:
            return f"{late} lease and lock"
    elif hit("short-stop", pid=next_sender, min_seconds=LEASE):
        late = "the second sender stalled in its send past"  # during the stall another sender claimed the record
    else:
        return ""
    if {sender, next_sender} & observations.drivers:
        return f"{late} the lease, no lock deliveries_by_record by the driver"
    if hit(*REDIS_FAULTS, since=LEASE + MAX_REQUEST_SECONDS):
        return f"{late} the lease, lock lost with Redis"
    return ""


def _sender(delivery: Delivery) -> int:
    return int(delivery.headers.get(HEADER, 0))


def _describe_duplicate(
    first: Delivery,
    second: Delivery,
    attempts: Sequence[Attempt],
    observations: Observations,
) -> str:
    """Return what happened at the time of a duplicate that no fault explains."""

    def describe_sender(delivery: Delivery) -> str:
        return f"{'driver' if _sender(delivery) in observations.drivers else 'worker'} {_sender(delivery)}"

    fault_texts = [
        f"{event.name} {sorted(event.pids)} {event.began - first.at:+.2f} for {event.ended - event.began:.2f}"
        for event in observations.events
        if event.began <= second.at and (event.ended or event.began) >= first.at - LOCK_TTL
    ]
    attempt_texts = [f"{item[1]} {item[2]} {item[3]} {item[4] - first.at:+.2f} took {item[5]:.2f}" for item in attempts]
    return (
        f"delivered by {describe_sender(first)} and {second.at - first.at:.2f} s later by {describe_sender(second)};"
        f" attempts: {'; '.join(attempt_texts)}; faults: {'; '.join(fault_texts) or 'none'}"
    )
