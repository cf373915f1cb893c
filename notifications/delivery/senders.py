"""The sends in flight of one drain: webhooks in one loop, providers that block in a pool of threads beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import cast

from notifications.conf import ServiceOptions
from notifications.conf.options import LOOP
from notifications.delivery.flight import Flight
from notifications.delivery.send_pool import COLLECT_WINDOW_SECONDS, IDLE_RECHECK_SECONDS, SendPool
from notifications.delivery.settlement import unsendable_result
from notifications.delivery.wakeup import Wakeup
from notifications.providers.attempt import attempt_exchange, attempt_send
from notifications.providers.base import Provider, SendResult
from notifications.providers.http.io_loop import IoLoop, borrow_loop
from notifications.providers.http.messages import HttpProvider

MAX_BLOCKING_SENDS = 32
"""Threads for the providers that block. More would only compete for the interpreter."""
POLL_SECONDS = 0.005
"""Longest wait for the network before a drain looks at its threads."""


def attempt(flight: Flight, providers: Mapping[str, Provider], options: ServiceOptions) -> None:
    """Make the attempt of a flight in this thread, and store its result in the flight.

    Args:
        flight: The flight.
        providers: Providers by channel.
        options: The timeouts.
    """
    if begin_attempt(flight, options):
        row = flight.row
        end_attempt(flight, attempt_send(providers[row.channel], row.request, row.endpoint))


def begin_attempt(flight: Flight, options: ServiceOptions) -> bool:
    """Note the time, and return whether the message may be sent now. The result may be known without a send.

    Args:
        flight: The flight. Without a result its claim is released.
        options: The timeouts.
    """
    flight.began = flight.ended = time.monotonic()
    if flight.row.unsendable:
        flight.result = unsendable_result(flight.row)
        return False
    # Otherwise the record waited too long, or this process was suspended. Another worker could claim the record
    # before the result of a send is stored, so nothing is sent and the claim is released.
    return flight.row.lease_deadline - flight.began > options.total_timeout + options.settle_margin


def end_attempt(flight: Flight, result: SendResult) -> None:
    """Store the result of an attempt in its flight.

    Args:
        flight: The flight.
        result: The normalized result.
    """
    flight.result = result
    flight.ended = time.monotonic()


class Senders:
    """Makes the attempts of flights, as many at a time as are submitted.

    Args:
        providers: Providers by channel.
        options: The timeouts, and SENDERS.
        wakeup: Ends a wait for the network.
    """

    def __init__(self, providers: Mapping[str, Provider], options: ServiceOptions, wakeup: Wakeup) -> None:
        self._providers = providers
        self._options = options
        self._wakeup = wakeup
        self._resources = ExitStack()
        self._loop: IoLoop | None = None
        self._blocking = SendPool[Flight](
            options.send_slots if options.senders != LOOP else min(options.send_slots, MAX_BLOCKING_SENDS),
            partial(attempt, providers=providers, options=options),
        )
        self._finished: list[Flight] = []

    @property
    def in_flight(self) -> int:
        """Number of flights that were submitted and not collected yet."""
        return self._blocking.in_flight + len(self._finished) + (self._loop.in_flight if self._loop else 0)

    def submit(self, flights: Collection[Flight]) -> None:
        """Start to send.

        Args:
            flights: The flights.
        """
        blocking = []
        for flight in flights:
            provider = self._providers[flight.row.channel]
            if self._options.senders != LOOP or getattr(provider, "blocks", True):
                blocking.append(flight)
            elif begin_attempt(flight, self._options):
                self._start(flight, cast("HttpProvider", provider))
            else:
                self._finished.append(flight)
        self._blocking.submit(blocking)

    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[Flight]:
        """Return the finished flights. Wait for the first one, and shortly for others.

        Args:
            interrupted: Function that returns True to end the wait early.

        Returns:
            The finished flights; an empty list if none has finished within IDLE_RECHECK_SECONDS.
        """
        if self._loop is None or not self._loop.in_flight:
            return self._take_finished() or self._blocking.collect(interrupted)
        deadline = time.monotonic() + IDLE_RECHECK_SECONDS
        self._loop.poll(0)
        while not (self._finished or self._blocking.done):
            left = deadline - time.monotonic()
            if left <= 0 or interrupted():
                return []
            self._loop.poll(min(left, POLL_SECONDS) if self._blocking.in_flight else left)
            self._blocking.scale_up()
        wanted = min(self._loop.in_flight + len(self._finished), self._options.send_slots // 2)
        window_ends = time.monotonic() + COLLECT_WINDOW_SECONDS
        while len(self._finished) < wanted and (left := window_ends - time.monotonic()) > 0 and not interrupted():
            self._loop.poll(left)
        return [*self._take_finished(), *self._blocking.take_done()]

    def collect_all(self) -> list[Flight]:
        """Wait until everything in flight has finished, and return it."""
        finished: list[Flight] = []
        while self.in_flight:
            finished += self.collect()
        return finished

    def close(self) -> None:
        """Return the loop, so that another drain can use its connections."""
        self._loop = None
        self._resources.close()

    def _start(self, flight: Flight, provider: HttpProvider) -> None:
        if self._loop is None:
            self._loop = self._resources.enter_context(borrow_loop())
            self._resources.enter_context(self._wakeup.interrupting(self._loop.interrupt))

        def done(result: SendResult | Exception) -> None:
            end_attempt(flight, cast("SendResult", result))  # an attempt raises nothing
            self._finished.append(flight)

        exchange = attempt_exchange(provider, flight.row.request, flight.row.endpoint)
        self._loop.start(provider.poster, exchange, done)

    def _take_finished(self) -> list[Flight]:
        finished, self._finished = self._finished, []
        return finished
