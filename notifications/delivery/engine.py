"""The one delivery engine: claim, lock, send, settle. First sends, retries, replays and recovery all go through it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, connection

from notifications.broker.redis_client import gateway
from notifications.clock import Clock
from notifications.conf import ServiceOptions, service_options
from notifications.delivery import circuit_breaker
from notifications.delivery.claim import Claimed, claim, release_claims
from notifications.delivery.locks import HeldLocks, Locks
from notifications.delivery.rate_limits import RateLimits, effective_limits
from notifications.delivery.send_pool import SendPool
from notifications.delivery.settle import (
    HOLD_RECHECK_SECONDS,
    Settlement,
    build_settlement,
    log_attempt,
    record_lost_attempts,
    settle_batch,
    unsendable_result,
)
from notifications.providers import configured_providers
from notifications.providers.base import Provider, SendResult, attempt_send
from notifications.states import Cause, HoldReason, Outcome

logger = logging.getLogger("notifications.delivery")

BACKLOG_WAKEUP_INTERVAL_SECONDS = 0.25
"""Seconds between two calls for help while claims come back full."""
SETTLE_RETRY_SECONDS = 0.5
"""Seconds between two tries to write results down while PostgreSQL is away."""


@dataclass(slots=True)
class RetryResult:
    """What a sweep did; the counters are the Go service's."""

    scanned: int = 0
    """Rows claimed."""
    retried: int = 0
    """Sends made."""
    sent: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0
    """Skipped by the provider, or left alone: the endpoint is not well, its rate limit is reached, or another process
    holds the key or has just sent it."""
    errors: int = 0
    """Results that could not be written down; the rows come back when their lease runs out."""
    has_more: bool = False
    """Whether rows were probably left: the time budget was spent before the table was."""


@dataclass(slots=True, kw_only=True)
class _Flight:
    """One claimed row on its way, with the lock it is sent under and the times of the send (monotonic clock)."""

    row: Claimed
    held: HeldLocks | None
    claim_valid: bool = True
    """Whether the claim still stood once the key was locked."""
    result: SendResult | None = None
    began: float = 0.0
    ended: float = 0.0

    @property
    def needs_no_health_update(self) -> bool:
        """Whether the message was delivered for certain, and that is no news of its endpoint."""
        return self.result is not None and self.result.outcome == Outcome.SUCCESS and not self.row.failures


class Engine:
    """Delivers rows. Cheap to make; any number of engines, processes and machines may work at once.

    clock: for tests, else PostgreSQL's decides what is due. locks: None to do without Redis.
    providers: by channel, the configured ones by default. should_stop: asked before each claim.
    wakeup: set by others to say that there are new rows; a drain then looks at once, whatever it waits for.
    respect_circuit_breaker: False sends to a paused or failing endpoint too: how a person tests one.
    """

    def __init__(
        self,
        *,
        options: ServiceOptions | None = None,
        clock: Clock | None = None,
        locks: Locks | None = None,
        providers: Mapping[str, Provider] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        wakeup: threading.Event | None = None,
        respect_circuit_breaker: bool = True,
    ) -> None:
        self.options = options or service_options()
        self.clock = clock
        self.locks = locks
        self.providers = configured_providers() if providers is None else providers
        self.should_stop = should_stop
        self.wakeup = wakeup or threading.Event()
        self.respect_circuit_breaker = respect_circuit_breaker

    @cached_property
    def rates(self) -> RateLimits:
        """The limits of the endpoints; read when something is claimed, since many engines only accept requests."""
        gateway = self.locks.gateway if self.locks else None
        return RateLimits(gateway, effective_limits(self.providers, self.options.rate_limits))

    def deliver_due(
        self,
        *,
        limit: int = 0,
        channels: Sequence[str] = (),
        on_backlog: Callable[[], object] = lambda: None,
        on_started: Callable[[], object] = lambda: None,
    ) -> RetryResult:
        """Claim, send and settle until nothing is due, the time budget is spent or we should stop.

        limit: rows to claim at most; 0 for no limit. channels: only these; all that have a provider by default.
        on_backlog: called when a claim comes back full, and again while the backlog lasts, so that others can help.
        on_started: called once, when the first rows are on their way and before the table is looked at again.
        A slow endpoint holds its slot, not the rest: results are settled and slots filled again as answers arrive.
        Raises DatabaseError if a claim failed, after what was in flight has been settled.
        """
        total = RetryResult()
        names = list(channels or self.providers)
        deadline = time.monotonic() + self.options.drain_budget
        pool = SendPool(self.options.send_slots, self._send)
        back: list[_Flight] = []
        call_at = 0.0
        first = True

        def room_now() -> int:
            return self._room(pool.in_flight, total.scanned, limit, deadline)

        try:
            while True:
                # Slots do not wait for the writing down while there is a backlog; but what may hold up others of its
                # endpoint, or let them go, is noted before anything else is claimed.
                if not (total.has_more and all(flight.needs_no_health_update for flight in back)):
                    self._finish(back, total)
                    back = []
                room = room_now()
                claimed = total.scanned
                if room:
                    self.wakeup.clear()  # before the claim, which then sees every row that was called for
                    pool.submit(self._take(room, names, total))
                    total.has_more = total.scanned - claimed == room
                if first:  # a first message waits for nothing but its claim
                    on_started()
                    circuit_breaker.release_and_probe_channels_if_due(self.options, self.clock)
                if room and total.has_more and time.monotonic() >= call_at:
                    on_backlog()
                    call_at = time.monotonic() + BACKLOG_WAKEUP_INTERVAL_SECONDS
                self._finish(back, total)
                back = []
                if pool.in_flight:
                    back = pool.collect(lambda: self.wakeup.is_set() and room_now() > 0)
                elif total.scanned == claimed and not first:
                    return total
                first = False
        finally:
            self._finish([*back, *pool.collect_all()], total)

    def deliver_one(self, record_id: int, *, caller_lock: HeldLocks | None = None) -> Settlement | None:
        """Run the same steps for one row, in this thread; return how it ended.

        held: locks the caller took for the row already and will give back itself.
        Returns None when there was nothing to do: not due, final, in other hands, or its answer could not be kept.
        """
        flights = self._take(1, list(self.providers), RetryResult(), record_id=record_id, held=caller_lock)
        for flight in flights:
            self._send(flight)
        ended = self._finish(flights, RetryResult(), caller_lock=caller_lock)
        return ended[0] if ended else None

    def _room(self, in_flight: int, scanned: int, limit: int, deadline: float) -> int:
        """Return how many rows may be claimed now: never more than can be sent at once."""
        if self.should_stop() or time.monotonic() >= deadline:
            return 0
        room = self.options.send_slots - in_flight
        return min(room, limit - scanned) if limit else room

    def _take(
        self,
        limit: int,
        channels: Sequence[str],
        total: RetryResult,
        *,
        record_id: int | None = None,
        held: HeldLocks | None = None,
    ) -> list[_Flight]:
        """Claim rows and lock their keys; rows whose key is held elsewhere are given back untouched."""
        rows = claim(limit, channels=channels, options=self.options, clock=self.clock, record_id=record_id)
        rows = self._one_recovered(rows)
        total.scanned += len(rows)
        rows = self._release_blocked(rows, total)
        if rows and self.locks and held is None:
            held = self.locks.acquire(row.lock_key for row in rows)
            busy = [row for row in rows if row.lock_key not in held.keys]
            release_claims(busy, delay=self.options.held_key_delay, clock=self.clock)
            total.skipped += len(busy)
            rows = [row for row in rows if row.lock_key in held.keys]
        gone = record_lost_attempts(rows, self.clock)
        total.skipped += len(gone)
        return [_Flight(row=row, held=held, claim_valid=row.record_id not in gone) for row in rows]

    def _release_blocked(self, rows: list[Claimed], total: RetryResult) -> list[Claimed]:
        """Give back, as they were, the rows whose endpoint is not well or has had enough for now; return the others."""
        if not self.respect_circuit_breaker:
            return rows
        held_up = circuit_breaker.blocked_rows(rows, self.options, self.clock)
        for reason in set(held_up.values()):
            those = [row for row in rows if held_up.get(row.record_id) == reason]
            release_claims(those, delay=HOLD_RECHECK_SECONDS, clock=self.clock, hold_reason=reason)
        rows = [row for row in rows if row.record_id not in held_up]
        waits = self.rates.delays(rows)
        those = [row for row in rows if row.record_id in waits]
        delays = [waits[row.record_id] for row in those]
        release_claims(those, delay=delays, clock=self.clock, hold_reason=HoldReason.RATE_LIMITED)
        total.skipped += len(held_up) + len(waits)
        return [row for row in rows if row.record_id not in waits]

    def _one_recovered(self, rows: list[Claimed]) -> list[Claimed]:
        """Keep only the first row that lost its worker: one that kills workers must not take the same others along."""
        crowd = {row.record_id: row for row in [row for row in rows if row.cause == Cause.RECOVERY][1:]}
        release_claims(list(crowd.values()), delay=0, clock=self.clock)
        return [row for row in rows if row.record_id not in crowd]

    def _send(self, flight: _Flight) -> None:
        """Make the attempt and note its answer. Runs in a sender thread, which never sees the database."""
        flight.began = flight.ended = time.monotonic()
        if not flight.claim_valid:
            return
        if flight.row.exhausted:
            flight.result = unsendable_result(flight.row)
        elif flight.row.lease_deadline - flight.began > self.options.total_timeout + self.options.settle_margin:
            flight.result = attempt_send(self.providers[flight.row.channel], flight.row.request, flight.row.endpoint)
            flight.ended = time.monotonic()
        # else the row waited too long, or this process slept: another could hold it before a result is written down

    def _finish(
        self, flights: Sequence[_Flight], total: RetryResult, *, caller_lock: HeldLocks | None = None
    ) -> list[Settlement]:
        """Settle what came back, then free the keys, then log. Returns the attempts whose record took the result."""
        if not flights:
            return []
        now = time.monotonic()
        group = [
            build_settlement(
                flight.row,
                flight.result,
                self.options,
                duration=flight.ended - flight.began,
                age=now - flight.began,
                crowded=self._crowded(flight.row.channel),
            )
            for flight in flights
            if flight.result is not None
        ]
        taken = self._settle(group)
        self._note_health(group)
        release_claims([flight.row for flight in flights if flight.result is None], delay=0, clock=self.clock)
        if self.locks:
            for held in {flight.held for flight in flights if flight.held not in (None, caller_lock)}:
                self.locks.release(held, [flight.row.lock_key for flight in flights if flight.held is held])
        for item in group:
            in_time = taken is not None and item.row.record_id in taken
            log_attempt(item, settled=in_time)
            total.retried += not item.row.exhausted
            total.errors += taken is None
            if in_time:
                setattr(total, item.status, getattr(total, item.status) + 1)
        return [item for item in group if taken is not None and item.row.record_id in taken]

    def _crowded(self, channel: str) -> datetime | None:
        if getattr(self.providers.get(channel), "crowded_half_hours", False):
            return self.clock() if self.clock else datetime.now(UTC)
        return None

    def _note_health(self, group: Sequence[Settlement]) -> None:
        try:
            circuit_breaker.record_results(group, self.options, self.clock)
        except DatabaseError as error:  # the next answer of the endpoint says it again
            logger.warning("endpoint health not noted: %s", type(error).__name__, extra={"event": "health.not_noted"})

    def _settle(self, group: Sequence[Settlement]) -> set[int] | None:
        """Write results down, patiently: while PostgreSQL is away nobody else can claim these rows either.

        Returns the ids that took their result, or None when the patience (one lease) ran out.
        """
        patience = time.monotonic() + self.options.lease
        while group:
            try:
                return settle_batch(group, self.clock)
            except (OperationalError, InterfaceError) as error:
                logger.warning(
                    "results of %d sends not written down yet: %s",
                    len(group),
                    type(error).__name__,
                    extra={"event": "settle.delayed"},
                )
                if time.monotonic() >= patience:
                    return None
                connection.close()
                time.sleep(SETTLE_RETRY_SECONDS)
            except DatabaseError:
                # One result PostgreSQL will not take must keep neither the others nor itself from being settled.
                if len(group) > 1:
                    return set().union(*(self._settle([item]) or set() for item in group))
                logger.exception("a result of record %d cannot be stored whole", group[0].row.record_id)
                if group == [group[0].without_provider_data()]:
                    return None
                group = [group[0].without_provider_data()]
        return set()


def engine_with_redis(**kwargs: Any) -> Engine:
    """Return an engine that takes the Redis locks of this project. Arguments are the engine's."""
    options = kwargs.setdefault("options", service_options())
    return Engine(locks=Locks(gateway(), ttl=options.lock_ttl), **kwargs)
