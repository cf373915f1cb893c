"""The loop that does the I/O of all HTTP exchanges of a process: one thread, non-blocking sockets, no callbacks.

An exchange (see `messages.Exchange`) says what to send and what the answers mean. The loop connects, sends and reads
for as many exchanges at a time as it is given. A request goes out at most once: nothing is sent again over another
connection.
"""

from __future__ import annotations

import os
import selectors
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any

from notifications.providers.base import SendResult
from notifications.providers.http.alarm import Alarm
from notifications.providers.http.connection import READ, WRITE, Connection, Wait, open_connection
from notifications.providers.http.connection_pool import ConnectionPool
from notifications.providers.http.failures import network_failure_result
from notifications.providers.http.lookup import Lookup, Resolver
from notifications.providers.http.messages import (
    Exchange,
    HttpRequest,
    HttpResponse,
    Poster,
    build_request,
    read_response,
)
from notifications.providers.http.response_reader import MAX_RESPONSE_BYTES, ResponseReader
from notifications.telemetry.loop_lag import note_lag

RECEIVE_BYTES = 16 * 1024
"""Bytes that one read asks a connection for."""
NETWORK_ERRORS = (HTTPException, OSError, ValueError)
Steps = Generator[Wait | Lookup, Any, SendResult]
"""An exchange with its I/O. It yields what it waits for."""


@dataclass(slots=True, eq=False)
class _Task:
    """One exchange in the loop."""

    steps: Steps
    done: Callable[[SendResult | Exception], None]
    expires: float = float("inf")
    """When the present wait ends without success, in seconds of the monotonic clock."""
    waits_for: Wait | Lookup | None = None


class IoLoop:
    """Runs exchanges. Only one thread may use a loop at a time; see `borrow_loop`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._pool = ConnectionPool()
        self._alarm = Alarm(self._selector)
        self._resolver = Resolver(self._alarm.ring)
        self._tasks: set[_Task] = set()
        self._earliest = float("inf")
        """No wait ends before this time."""
        self._looked_at = 0.0
        """When the network was last looked at, in seconds of the monotonic clock; 0 if nothing was in flight."""
        self._buffer = memoryview(bytearray(RECEIVE_BYTES))
        self.close = weakref.finalize(self, _close, self._pool, self._alarm, self._selector)

    @property
    def in_flight(self) -> int:
        """Number of exchanges that have not ended yet."""
        return len(self._tasks)

    def start(self, poster: Poster, exchange: Exchange, done: Callable[[SendResult | Exception], None]) -> None:
        """Start an exchange. Its first request is written at once if a connection is open.

        Args:
            poster: Whose bounds and addresses apply.
            exchange: The exchange.
            done: Function that is called with the result, or with what the exchange raised: by `poll`, or by `start`
                if no wait was necessary. It must not raise.
        """
        task = _Task(self._perform(poster, exchange), done)
        self._tasks.add(task)
        self._resume(task, None)

    def interrupt(self) -> None:
        """End the present wait of `poll`, or its next one. Any thread may call it."""
        self._alarm.ring()

    def poll(self, timeout: float) -> None:
        """Do what I/O is possible. Wait for the first one, but not longer than `timeout` seconds.

        Args:
            timeout: Seconds; 0 for no wait.
        """
        now = time.monotonic()
        if self._tasks and self._looked_at:
            note_lag(now - self._looked_at)
        events = self._selector.select(max(min(timeout, self._earliest - now), 0.0))
        self._looked_at = time.monotonic()
        self._handle(events)
        if not self._tasks:
            self._looked_at = 0.0
        if time.monotonic() >= self._earliest:
            # An answer that has arrived counts, however late this process looks at it. A wait that was interrupted
            # because the process was stopped and resumed reports nothing if its time has passed (PEP 475).
            self._handle(self._selector.select(0))
            self._end_expired_waits()

    def run(self, poster: Poster, exchange: Exchange) -> SendResult:
        """Run one exchange to its end and return its result. The loop must have no other one.

        Args:
            poster: Whose bounds and addresses apply.
            exchange: The exchange.

        Raises:
            Exception: What the exchange raised.
        """
        results: list[SendResult | Exception] = []
        self.start(poster, exchange, results.append)
        while not results:
            self.poll(60.0)
        [result] = results
        if isinstance(result, Exception):
            raise result
        return result

    def abandon(self) -> None:
        """End every exchange without a result. For a caller that is itself ended by an exception."""
        for task in list(self._tasks):
            self._resolver.forget(task)
            task.steps.close()
        self._tasks.clear()
        self._looked_at = 0.0

    def _handle(self, events: Sequence[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _mask in events:
            connection = key.data
            if connection is None:
                self._alarm.silence()
                for task, answer in self._resolver.take_answers():
                    self._resume(task, answer)
            elif task := connection.waiter:
                connection.waiter = None
                self._resume(task, None)
            else:
                self._pool.drop(connection)  # the other side closed it or wrote to it while it was idle

    def _resume(self, task: _Task, answer: Any) -> None:
        try:
            wait = task.steps.throw(answer) if isinstance(answer, BaseException) else task.steps.send(answer)
        except StopIteration as end:
            self._tasks.discard(task)
            task.done(end.value)
            return
        except Exception as error:
            self._tasks.discard(task)
            task.done(error)
            return
        except BaseException:  # this process is to end
            self._tasks.discard(task)
            raise
        task.waits_for = wait
        task.expires = wait.expires
        self._earliest = min(self._earliest, wait.expires)
        if isinstance(wait, Lookup):
            self._resolver.ask(wait, task)
        else:
            wait.connection.watch(wait.event, task)

    def _end_expired_waits(self) -> None:
        now = time.monotonic()
        for task in [task for task in self._tasks if task.expires <= now]:
            if isinstance(task.waits_for, Wait):
                task.waits_for.connection.waiter = None
            elif task.waits_for:
                self._resolver.forget(task)
            self._resume(task, TimeoutError("no answer in time"))
        self._earliest = min((task.expires for task in self._tasks), default=float("inf"))

    def _perform(self, poster: Poster, exchange: Exchange) -> Steps:
        """Do the I/O of an exchange."""
        deadline = time.monotonic() + poster.options.total_timeout
        answer: HttpResponse | SendResult | None = None
        try:
            while True:
                try:
                    request = exchange.send(answer)  # type: ignore[arg-type]
                except StopIteration as end:
                    result: SendResult = end.value
                    return result
                answer = yield from self._post(poster, request, deadline)
        finally:
            exchange.close()

    def _post(
        self, poster: Poster, request: HttpRequest, deadline: float
    ) -> Generator[Wait | Lookup, Any, HttpResponse | SendResult]:
        outbound = poster.outbound(request)
        connection = None
        sent = False
        try:
            data = build_request(request.url, request.body, {**outbound.headers, **request.headers}, request.method)
            connection = self._pool.pop(outbound, max_idle_seconds=poster.options.idle_connection_ttl)
            if connection is None:
                connection = yield from open_connection(
                    self._selector,
                    outbound.origin,
                    proxy=outbound.proxy,
                    private_allowed=outbound.private_allowed,
                    connect_timeout=poster.options.connect_timeout,
                    deadline=deadline,
                )
            yield from connection.send(data, timeout=poster.options.read_timeout, deadline=deadline)
            sent = True
            reader = yield from self._read(connection, poster.options.read_timeout, deadline)
            response = read_response(reader)
        except NETWORK_ERRORS as error:
            if connection:
                connection.close()
            return replace(network_failure_result(error), maybe_delivered=sent)
        except BaseException:
            if connection:
                connection.close()
            raise
        if reader.reusable and not connection.pending:
            self._pool.push(outbound, connection, max_idle=poster.options.send_slots)
        else:
            connection.close()
        return response

    def _read(
        self, connection: Connection, timeout: float, deadline: float
    ) -> Generator[Wait | Lookup, Any, ResponseReader]:
        reader = ResponseReader(MAX_RESPONSE_BYTES)
        try:
            yield Wait(connection, READ, min(time.monotonic() + timeout, deadline))
            while True:
                event = connection.receive(self._buffer)
                if event in (READ, WRITE):
                    yield Wait(connection, event, min(time.monotonic() + timeout, deadline))
                elif event == 0:
                    reader.end()
                    return reader
                elif reader.feed(self._buffer[:event]):
                    return reader
                elif time.monotonic() >= deadline:
                    raise TimeoutError("deadline of the whole attempt")
        finally:
            reader.close()


_idle_loops: list[IoLoop] = []
_idle_loops_lock = threading.Lock()
os.register_at_fork(after_in_child=_idle_loops.clear)


@contextmanager
def borrow_loop() -> Iterator[IoLoop]:
    """Lend a loop of this process to the calling thread. The one that was used last comes first: its connections live.

    Yields:
        A loop without exchanges. Those that have not ended at the end of the block are abandoned.
    """
    with _idle_loops_lock:
        loop = _idle_loops.pop() if _idle_loops else IoLoop()
    try:
        yield loop
    finally:
        loop.abandon()
        with _idle_loops_lock:
            _idle_loops.append(loop)


def close_idle_loops() -> None:
    """Close the loops that nobody uses, with their connections. For tests."""
    with _idle_loops_lock:
        while _idle_loops:
            _idle_loops.pop().close()


def _close(pool: ConnectionPool, alarm: Alarm, selector: selectors.BaseSelector) -> None:
    pool.close()
    alarm.close()
    selector.close()
