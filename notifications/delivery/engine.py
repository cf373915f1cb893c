"""The delivery engine: claim, lock, send, settle. First sends, retries, replays and recovery all use it."""

from __future__ import annotations

import gc
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db import DatabaseError

from notifications.broker.redis_client import gateway
from notifications.clock import Clock
from notifications.conf import ServiceOptions, service_options
from notifications.delivery import circuit_breaker
from notifications.delivery.admission import (
    admit_healthy,
    admit_one_recovered,
    admit_unsettled,
    admit_within_limits,
    lock_claim,
)
from notifications.delivery.attempt_log import log_attempt
from notifications.delivery.claim import claim, release_claims, seconds_until_due
from notifications.delivery.fairness import Candidate, Shares, look_at_due
from notifications.delivery.flight import Flight, build_settlements
from notifications.delivery.held_records import release_and_probe_channels_if_due
from notifications.delivery.locks import KeyLock, Locks, lock_ttl
from notifications.delivery.queue_start import QueueStart
from notifications.delivery.rate_limits import RateLimits, effective_limits
from notifications.delivery.senders import Senders, attempt
from notifications.delivery.settle import settle_with_retries
from notifications.delivery.settlement import Settlement
from notifications.delivery.wakeup import Wakeup
from notifications.providers import configured_providers
from notifications.providers.base import Provider
from notifications.states import Cause, Priority

logger = logging.getLogger("notifications.delivery")

BACKLOG_WAKEUP_INTERVAL_SECONDS = 0.25
"""Time between two calls of `on_backlog` while claims return as many rows as they asked for."""

COLLECT_AFTER_OBJECTS = 50_000
"""New objects after which Python looks for cycles of garbage while a drain runs. A send makes many objects and no
cycle. With Python's own threshold of 700 the search takes a tenth of the time of a delivery, or more."""


@dataclass(slots=True)
class RetryResult:
    """What a sweep did. The counters are the Go service's."""

    scanned: int = 0
    """Records claimed, or held for an earlier message of their order key."""
    sends: int = 0
    """Records that were neither held nor released again: a limit counts these."""
    retried: int = 0
    """Attempts made."""
    sent: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0
    """Skipped by the provider, or not sent: the endpoint is paused or failing, its rate limit is reached, its former
    worker lives or has just sent the message, or an earlier message of its order key is not sent yet."""
    errors: int = 0
    """Results that could not be stored. These records are sent again after their lease."""
    has_more: bool = False
    """Whether due records are probably left, because the time budget ended first."""

    @property
    def more(self) -> bool:
        """Deprecated: use `has_more`."""
        warnings.warn("RetryResult.more is now has_more", DeprecationWarning, stacklevel=2)
        return self.has_more


@contextmanager
def _rare_garbage_collection() -> Iterator[None]:
    before = gc.get_threshold()
    if not 0 < before[0] < COLLECT_AFTER_OBJECTS:
        yield  # collection is off or rare already, or another drain of this process has changed it
        return
    gc.set_threshold(COLLECT_AFTER_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Engine:
    """Delivers records. Any number of engines, processes and machines may work at the same time.

    Args:
        options: The settings; `settings.NOTIFICATIONS` by default.
        clock: Clock of a test; by default PostgreSQL's clock decides which records are due.
        locks: The Redis locks; None to work without Redis.
        providers: Providers by channel; the configured ones by default.
        should_stop: Function that returns True to stop. It is called before each claim.
        wakeup: Event that another thread sets when there are new records. A drain then claims at once.
        queue_start: Where the queue begins for this process; a new engine begins at its real beginning.
        before_claim: Function that returns a statement of SQL, or an empty text. A drain runs it just before it reads
            the due records.
    """

    def __init__(
        self,
        *,
        options: ServiceOptions | None = None,
        clock: Clock | None = None,
        locks: Locks | None = None,
        providers: Mapping[str, Provider] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        wakeup: Wakeup | None = None,
        before_claim: Callable[[], str] = lambda: "",
        queue_start: QueueStart | None = None,
    ) -> None:
        self.options = options or service_options()
        self.clock = clock
        self.locks = locks
        self.providers = configured_providers() if providers is None else providers
        self.should_stop = should_stop
        self.wakeup = wakeup or Wakeup()
        self.before_claim = before_claim
        self.queue_start = queue_start or QueueStart()

    @cached_property
    def rate_limits(self) -> RateLimits:
        """The rate limits of the endpoints. Built at the first claim, because many engines only accept requests."""
        gateway = self.locks.gateway if self.locks else None
        return RateLimits(gateway, effective_limits(self.providers, self.options.rate_limits))

    @_rare_garbage_collection()
    def deliver_due(
        self,
        *,
        limit: int = 0,
        channels: Sequence[str] = (),
        on_backlog: Callable[[], object] = lambda: None,
        on_started: Callable[[], object] = lambda: None,
    ) -> RetryResult:
        """Drain: claim, send and settle until nothing is due, the time budget ends, or `should_stop` returns True.

        A slow endpoint keeps its send slot, not the others: results are settled and free slots filled as sends finish.

        Args:
            limit: Largest number of records to send; 0 for no limit. Records that are held do not count.
            channels: Names of the channels to deliver; all that have a provider by default.
            on_backlog: Function that is called when a claim returns as many rows as it asked for, and again while that
                lasts, so that other processes can help.
            on_started: Function that is called once, when the first records are being sent and before the next claim.

        Returns:
            The counters of this drain.

        Raises:
            DatabaseError: A claim failed. Everything in flight was settled first.
        """
        total = RetryResult()
        names = list(channels or self.providers)
        deadline = time.monotonic() + self.options.drain_budget
        senders = Senders(self.providers, self.options, self.wakeup)
        shares = Shares(self.options)
        finished: list[Flight] = []
        next_backlog_call = 0.0
        first = True
        self.queue_start.expect()

        def free_slots() -> int:
            return self._free_slots(senders.in_flight, total.sends, limit, deadline)

        try:
            while True:
                # Under a backlog, claim before settling plain successes so that senders stay busy. Results that change
                # endpoint health are settled first, because they decide which rows may be claimed.
                settled: list[Settlement] = []
                if not (total.has_more and all(flight.needs_no_health_update for flight in finished)):
                    settled = self._finish(finished, total)
                    finished = []
                slots = free_slots()
                scanned_before = total.scanned
                if slots:
                    if self.wakeup.is_set():
                        self.wakeup.clear()  # before the claim, which then sees every record that the wakeup was for
                        self.queue_start.expect()
                    flights = self._claim_fairly(slots, names, total, shares, senders.in_flight)
                    shares.take(flight.row for flight in flights)
                    senders.submit(flights)
                    self._receive_lock_answers()
                if first:  # the first message waits only for its claim and lock
                    on_started()
                    release_and_probe_channels_if_due(self.options, self.clock)
                if slots and total.has_more and time.monotonic() >= next_backlog_call:
                    on_backlog()
                    next_backlog_call = time.monotonic() + BACKLOG_WAKEUP_INTERVAL_SECONDS
                settled += self._finish(finished, total)
                finished = []
                # The next records of these keys are due now.
                let_next_go = any(item.row.order_key for item in settled)
                total.has_more = total.has_more or (let_next_go and not slots)
                if senders.in_flight:
                    finished = senders.collect(lambda: self.wakeup.is_set() and free_slots() > 0)
                    shares.give_back(flight.row for flight in finished)
                elif total.scanned == scanned_before and not first and not (let_next_go and slots):
                    return total
                first = False
        finally:
            self._receive_lock_answers()
            self._finish([*finished, *senders.collect_all()], total)
            senders.close()

    def deliver_one(self, record_id: int, *, caller_lock: KeyLock | None = None) -> Settlement | None:
        """Claim, lock, send and settle one record in this thread.

        Args:
            record_id: Id of the record.
            caller_lock: Lock of the record's key that the caller took, and releases itself.

        Returns:
            The settlement. None if nothing was done: the record is not due or is final, another process works on it,
            or the result could not be stored.
        """
        flights = self._claim(1, list(self.providers), RetryResult(), ids=[record_id], caller_lock=caller_lock)
        self._receive_lock_answers()
        for flight in flights:
            attempt(flight, self.providers, self.options)
        settlements = self._finish(flights, RetryResult())
        return settlements[0] if settlements else None

    def seconds_until_due(self, within: float) -> float | None:
        """Return how soon the next record of a channel with a provider becomes due.

        Args:
            within: Seconds to look ahead.

        Returns:
            The seconds; None if no record becomes due within that time, and no look at the whole queue is left to do.
        """
        waits = (seconds_until_due(list(self.providers), within=within), self.queue_start.seconds_until_full_look)
        return min((seconds for seconds in waits if seconds is not None), default=None)

    def _receive_lock_answers(self) -> None:
        """Receive the answers of Redis that the first byte of a message did not wait for."""
        if self.locks:
            self.locks.receive_answers()

    def _free_slots(self, in_flight: int, sends: int, limit: int, deadline: float) -> int:
        """Return how many records may be claimed now: never more than can be sent at once."""
        if self.should_stop() or time.monotonic() >= deadline:
            return 0
        free = self.options.send_slots - in_flight
        return min(free, limit - sends) if limit else free

    def _claim_fairly(
        self, slots: int, channels: Sequence[str], total: RetryResult, shares: Shares, in_flight: int
    ) -> list[Flight]:
        """Claim records for the free slots. If more are due than can be sent at once, each recipient gets its share."""
        before = total.scanned
        if not total.has_more and in_flight < shares.share:
            limit = max(1, min(slots, shares.ceiling - in_flight))
            flights = self._claim(limit, channels, total, before=self.before_claim())
            total.has_more = total.scanned - before == limit
            return flights
        since = self.queue_start.begin(channels)
        candidates = look_at_due(channels, slots, self.clock, since, before=self.before_claim())
        chosen = shares.choose(candidates, slots)
        self.queue_start.end(shares.left)
        flights = self._claim_chosen(chosen, total) if chosen else []
        total.has_more = len({item.record_id for item in candidates}) > total.scanned - before
        return flights

    def _claim_chosen(self, chosen: Sequence[Candidate], total: RetryResult) -> list[Flight]:
        """Claim these records. The claim reads only the channels and priorities that they have."""
        return self._claim(
            len(chosen),
            list({item.channel for item in chosen}),
            total,
            ids=[item.record_id for item in chosen],
            priorities=list({item.priority for item in chosen}),
        )

    def _claim(
        self,
        limit: int,
        channels: Sequence[str],
        total: RetryResult,
        *,
        ids: Sequence[int] | None = None,
        priorities: Sequence[int] = tuple(Priority.values),
        caller_lock: KeyLock | None = None,
        before: str = "",
    ) -> list[Flight]:
        """Claim records and lock the claim. Release the records that may not be sent now."""
        since = self.queue_start.begin(channels) if ids is None else {}
        claims = claim(
            limit,
            channels=channels,
            options=self.options,
            clock=self.clock,
            ids=ids,
            priorities=priorities,
            since=since,
            before=before,
        )
        if ids is None:
            self.queue_start.end({row.priority: row.due_since for row in claims})
        rows = admit_one_recovered(claims, self.clock)
        claimed = len(rows) + claims.blocked
        total.scanned += claimed
        lock = None
        if rows and self.locks:
            rows, lock = lock_claim(rows, self.locks, self.options, self.clock, caller_lock=caller_lock)
        rows = admit_unsettled(rows, self.clock)
        rows = admit_healthy(rows, self.options, self.clock)
        rows = admit_within_limits(rows, self.rate_limits, self.clock)
        total.sends += len(rows)
        total.skipped += claimed - len(rows)
        flights = [Flight(row=row, key_lock=lock if row.cause == Cause.RECOVERY else None) for row in rows]
        if lock and self.locks and all(flight.key_lock is None for flight in flights):
            self.locks.release(lock)
        return flights

    def _finish(self, flights: Sequence[Flight], total: RetryResult) -> list[Settlement]:
        """Settle the results, release the key locks, log. Return the settlements that changed their records."""
        if not flights:
            return []
        group = build_settlements(flights, self.providers, self.options, self.clock)
        stored = settle_with_retries(group, self.clock, patience=self.options.lease)
        self._record_health(group)
        release_claims([flight.row for flight in flights if flight.result is None], delay=0, clock=self.clock)
        for flight in flights:
            if flight.key_lock and self.locks:
                self.locks.release(flight.key_lock)
        for item in group:
            taken = stored is not None and item.row.record_id in stored
            log_attempt(item, stored=taken)
            total.retried += not item.row.exhausted
            total.errors += stored is None
            if taken:
                setattr(total, item.status, getattr(total, item.status) + 1)
        return [item for item in group if stored is not None and item.row.record_id in stored]

    def _record_health(self, group: Sequence[Settlement]) -> None:
        try:
            circuit_breaker.record_results(group, self.options, self.clock)
        except DatabaseError as error:  # the next result of the endpoint has the same information
            logger.warning("endpoint health not stored: %s", type(error).__name__, extra={"event": "health.not_noted"})


def engine_with_redis(**kwargs: Any) -> Engine:
    """Return an engine that uses the Redis locks of this project.

    Args:
        kwargs: Arguments of `Engine`.
    """
    options = kwargs.setdefault("options", service_options())
    return Engine(locks=Locks(gateway(), ttl=lock_ttl(options)), **kwargs)
