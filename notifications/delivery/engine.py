"""The delivery engine: claim, lock, send, settle. First sends, retries, replays and recovery all use it."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db import DatabaseError

from notifications.broker.redis_client import gateway
from notifications.clock import Clock
from notifications.conf import ServiceOptions, service_options
from notifications.delivery import circuit_breaker
from notifications.delivery.admission import admit_healthy, admit_one_recovered, admit_within_limits, lock_keys
from notifications.delivery.attempt_log import log_attempt
from notifications.delivery.claim import claim, release_claims
from notifications.delivery.flight import Flight, build_settlements
from notifications.delivery.held_records import release_and_probe_channels_if_due
from notifications.delivery.locks import HeldLocks, Locks, lock_ttl
from notifications.delivery.rate_limits import RateLimits, effective_limits
from notifications.delivery.send_pool import SendPool
from notifications.delivery.settle import record_lost_attempts, settle_with_retries
from notifications.delivery.settlement import Settlement, unsendable_result
from notifications.providers import configured_providers
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Provider

logger = logging.getLogger("notifications.delivery")

BACKLOG_WAKEUP_INTERVAL_SECONDS = 0.25
"""Time between two calls of `on_backlog` while claims return as many rows as they asked for."""


@dataclass(slots=True)
class RetryResult:
    """What a sweep did. The counters are the Go service's."""

    scanned: int = 0
    """Records claimed."""
    retried: int = 0
    """Attempts made."""
    sent: int = 0
    failed: int = 0
    dead: int = 0
    skipped: int = 0
    """Skipped by the provider, or not sent: the endpoint is paused or failing, its rate limit is reached, or another
    process holds the key or has just sent the message."""
    errors: int = 0
    """Results that could not be stored. These records are sent again after their lease."""
    has_more: bool = False
    """Whether due records are probably left, because the time budget ended first."""

    @property
    def more(self) -> bool:
        """Deprecated: use `has_more`."""
        warnings.warn("RetryResult.more is now has_more", DeprecationWarning, stacklevel=2)
        return self.has_more


class Engine:
    """Delivers records. Any number of engines, processes and machines may work at the same time.

    Args:
        options: The settings; `settings.NOTIFICATIONS` by default.
        clock: Clock of a test; by default PostgreSQL's clock decides which records are due.
        locks: The Redis locks; None to work without Redis.
        providers: Providers by channel; the configured ones by default.
        should_stop: Function that returns True to stop. It is called before each claim.
        wakeup: Event that another thread sets when there are new records. A drain then claims at once.
        respect_circuit_breaker: False to send to paused and failing endpoints too, for test messages.
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
    def rate_limits(self) -> RateLimits:
        """The rate limits of the endpoints. Built at the first claim, because many engines only accept requests."""
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
        """Drain: claim, send and settle until nothing is due, the time budget ends, or `should_stop` returns True.

        A slow endpoint keeps its send slot, not the others: results are settled and free slots filled as sends finish.

        Args:
            limit: Largest number of records to claim; 0 for no limit.
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
        pool = SendPool(self.options.send_slots, self._send)
        finished: list[Flight] = []
        next_backlog_call = 0.0
        first = True

        def free_slots() -> int:
            return self._free_slots(pool.in_flight, total.scanned, limit, deadline)

        try:
            while True:
                # Under a backlog, claim before settling plain successes so that senders stay busy. Results that change
                # endpoint health are settled first, because they decide which rows may be claimed.
                if not (total.has_more and all(flight.needs_no_health_update for flight in finished)):
                    self._finish(finished, total)
                    finished = []
                slots = free_slots()
                scanned_before = total.scanned
                if slots:
                    self.wakeup.clear()  # before the claim, which then sees every record that the wakeup was for
                    pool.submit(self._claim(slots, names, total))
                    total.has_more = total.scanned - scanned_before == slots
                if first:  # the first message waits only for its claim and lock
                    on_started()
                    release_and_probe_channels_if_due(self.options, self.clock)
                if slots and total.has_more and time.monotonic() >= next_backlog_call:
                    on_backlog()
                    next_backlog_call = time.monotonic() + BACKLOG_WAKEUP_INTERVAL_SECONDS
                self._finish(finished, total)
                finished = []
                if pool.in_flight:
                    finished = pool.collect(lambda: self.wakeup.is_set() and free_slots() > 0)
                elif total.scanned == scanned_before and not first:
                    return total
                first = False
        finally:
            self._finish([*finished, *pool.collect_all()], total)

    def deliver_one(self, record_id: int, *, caller_lock: HeldLocks | None = None) -> Settlement | None:
        """Claim, lock, send and settle one record in this thread.

        Args:
            record_id: Id of the record.
            caller_lock: Lock of the record's key that the caller took, and releases itself.

        Returns:
            The settlement. None if nothing was done: the record is not due or is final, another process works on it,
            or the result could not be stored.
        """
        flights = self._claim(1, list(self.providers), RetryResult(), record_id=record_id, caller_lock=caller_lock)
        for flight in flights:
            self._send(flight)
        settlements = self._finish(flights, RetryResult(), caller_lock=caller_lock)
        return settlements[0] if settlements else None

    def _free_slots(self, in_flight: int, scanned: int, limit: int, deadline: float) -> int:
        """Return how many records may be claimed now: never more than can be sent at once."""
        if self.should_stop() or time.monotonic() >= deadline:
            return 0
        free = self.options.send_slots - in_flight
        return min(free, limit - scanned) if limit else free

    def _claim(
        self,
        limit: int,
        channels: Sequence[str],
        total: RetryResult,
        *,
        record_id: int | None = None,
        caller_lock: HeldLocks | None = None,
    ) -> list[Flight]:
        """Claim records, release those that may not be sent now, and lock the keys of the others."""
        rows = claim(limit, channels=channels, options=self.options, clock=self.clock, record_id=record_id)
        rows = admit_one_recovered(rows, self.clock)
        total.scanned += len(rows)
        claimed = len(rows)
        if self.respect_circuit_breaker:
            rows = admit_healthy(rows, self.options, self.clock)
            rows = admit_within_limits(rows, self.rate_limits, self.clock)
        held = caller_lock
        if rows and self.locks and held is None:
            rows, held = lock_keys(rows, self.locks, self.options, self.clock)
        invalid = record_lost_attempts(rows, self.clock)
        total.skipped += claimed - len(rows) + len(invalid)
        return [Flight(row=row, held=held, claim_valid=row.record_id not in invalid) for row in rows]

    def _send(self, flight: Flight) -> None:
        """Make the attempt. Runs in a thread of the send pool, which never uses the database."""
        flight.began = flight.ended = time.monotonic()
        if not flight.claim_valid:
            return
        if flight.row.exhausted:
            flight.result = unsendable_result(flight.row)
        elif flight.row.lease_deadline - flight.began > self.options.total_timeout + self.options.settle_margin:
            flight.result = attempt_send(self.providers[flight.row.channel], flight.row.request, flight.row.endpoint)
            flight.ended = time.monotonic()
        # Otherwise the record waited too long, or this process was suspended. Another worker could claim the record
        # before the result of a send is stored, so nothing is sent and the claim is released.

    def _finish(
        self, flights: Sequence[Flight], total: RetryResult, *, caller_lock: HeldLocks | None = None
    ) -> list[Settlement]:
        """Settle the results, then release the locks, then log. Return the settlements that changed their records."""
        if not flights:
            return []
        group = build_settlements(flights, self.providers, self.options, self.clock)
        stored = settle_with_retries(group, self.clock, patience=self.options.lease)
        self._record_health(group)
        release_claims([flight.row for flight in flights if flight.result is None], delay=0, clock=self.clock)
        if self.locks:
            for held in {flight.held for flight in flights if flight.held not in (None, caller_lock)}:
                self.locks.release(held, [flight.row.lock_key for flight in flights if flight.held is held])
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
