"""Calls the receivers of signals for the events that were stored, in order for each record, at least once.

An event is deleted when all receivers have taken it. A receiver that fails is called again later, after growing delays,
and those that have taken the event are not. The relay of a process runs in a thread of its own, so that a slow receiver
delays no delivery.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.db import close_old_connections, connection, transaction
from django.db.models import F
from django.db.models.functions import Now

from notifications.lifecycle.events import heard_signals, stored
from notifications.models import NotificationEvent, NotificationRecord
from notifications.signals import RECORD_SIGNALS
from notifications.sql import FORBID_SORT, load_sql
from notifications.user_keys import user_key_field

logger = logging.getLogger("notifications.signals")

MAX_ATTEMPTS = 16
"""Attempts until an event is given up, about six hours after the first one. It stays, with its error."""
FIRST_DELAY_SECONDS = 5.0
"""Delay after the first failure. It doubles after each further one. A process that takes events and dies delays them
by it, too."""
LONGEST_DELAY_SECONDS = 3600.0
ABANDONED_SECONDS = 86_400.0
"""Age from which an event is given up that nobody listens for any more, and that holds up later ones of its record."""
LOOK_SECONDS = 5.0
"""How often a relay looks for events of other processes, and for those to be tried again."""
BATCH_EVENTS = 20
"""Events that are taken at once."""
BATCH_SECONDS = FIRST_DELAY_SECONDS / 2
"""After this time the rest of a batch is given back: other processes may take it after FIRST_DELAY_SECONDS."""
MAX_PAUSE_SECONDS = 1.0
"""Longest pause after a batch while something is delivered. A relay pauses for as long as the batch took."""
STOP_SECONDS = 5.0
"""How long a process that stops waits for its relay. An event whose receiver takes longer is sent again."""

Receiver = Callable[..., Any]
_TAKE = load_sql("notifications.lifecycle", "take_events")


def relay_events(
    *,
    budget: float = math.inf,
    should_stop: Callable[[], bool] = lambda: False,
    delivering: Callable[[], bool] = lambda: False,
) -> int:
    """Call the receivers for the events that are due, until none is left. Any number of processes may do so at once.

    Args:
        budget: Seconds after which no further receiver is called. A receiver that runs is not interrupted.
        should_stop: Called before each event. True ends the relay.
        delivering: Whether this process delivers now. The relay then pauses for as long as it works.

    Returns:
        The number of events that all receivers have taken.

    Raises:
        DatabaseError: PostgreSQL failed. Events that were taken are tried again.
    """
    deadline, relayed = time.monotonic() + budget, 0
    while heard_signals() and not should_stop() and time.monotonic() < deadline:
        began = time.monotonic()
        taken = _take(BATCH_EVENTS)
        if not taken:
            break
        for position, (event_id, attempts) in enumerate(taken):
            now = time.monotonic()
            if should_stop() or now >= deadline or now - began >= BATCH_SECONDS:
                _give_back(taken[position:])
                break
            relayed += _relay(event_id, attempts)
        if delivering():
            time.sleep(min(time.monotonic() - began, MAX_PAUSE_SECONDS))
    return relayed


class RelayThread:
    """The thread of a process that calls the receivers. It starts when it is first needed.

    Args:
        delivering: Whether this process delivers now.
    """

    def __init__(self, delivering: Callable[[], bool] = lambda: False) -> None:
        self._delivering = delivering
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start the thread, unless it runs or nobody listens. A call that does nothing costs a microsecond."""
        if self._stopping or not heard_signals():
            return
        with self._lock:
            # A process that was forked from one with a relay has none.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="signal-relay", daemon=True)
                self._thread.start()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Let the thread end after the receiver that it is calling.

        Args:
            timeout: Seconds to wait for it at most.
        """
        self._stopping = True
        stored.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping:
            stored.clear()
            try:
                close_old_connections()
                relay_events(should_stop=lambda: self._stopping, delivering=self._delivering)
            # Whatever it was, the thread must go on: nobody else calls the receivers.
            except Exception as error:
                logger.warning("signals put off: %s", type(error).__name__, extra={"event": "signal.put_off"})
                connection.close()
            stored.wait(LOOK_SECONDS)
        connection.close()


def _take(limit: int) -> list[tuple[int, int]]:
    """Count an attempt of the next due events. Return their ids and numbers of attempts."""
    parameters: dict[str, Any] = {
        "names": sorted(heard_signals()),
        "abandoned": ABANDONED_SECONDS,
        "first_delay": FIRST_DELAY_SECONDS,
        "longest_delay": LONGEST_DELAY_SECONDS,
        "limit": limit,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(FORBID_SORT)
        cursor.execute(_TAKE, parameters)
        return sorted(cursor.fetchall())


def _give_back(taken: list[tuple[int, int]]) -> None:
    """Undo `_take` for events that were not tried."""
    for event_id, attempts in taken:
        untouched = NotificationEvent.objects.filter(pk=event_id, attempts=attempts)
        untouched.update(attempts=F("attempts") - 1, next_attempt_at=Now())


def _relay(event_id: int, attempts: int) -> bool:
    """Call the receivers that have not taken an event yet. Return whether all have.

    The row is locked meanwhile, so that no other process calls them, however long they take. What a receiver writes
    into this database is committed together with the note that it has taken the event.
    """
    with transaction.atomic():
        # Another process has taken the event if this one stood still after its claim.
        own = NotificationEvent.objects.filter(pk=event_id, attempts=attempts)
        event = own.select_for_update(skip_locked=True).first()
        if event is None:
            return False
        if error := _reason_to_give_up(event):
            _store_failure(event, error, give_up=True)
            return False
        taken_by, failures = set(event.received_by), []
        for name, receiver, is_async in _receivers(event.name):
            if name in taken_by:
                continue
            try:
                with transaction.atomic():
                    _call(receiver, is_async, event)
            except Exception as failure:
                # The type only: the text may hold a secret.
                failures.append(f"{name}: {type(failure).__name__}")
                logger.warning(
                    "a receiver of %s failed for record %d: %s",
                    *(event.name, event.record_id, failures[-1]),
                    extra={"event": "signal.failed", "record_id": event.record_id, "receiver": name},
                )
            else:
                taken_by.add(name)
        if failures:
            event.received_by = sorted(taken_by)
            _store_failure(event, failures[0], give_up=event.attempts >= MAX_ATTEMPTS)
        else:
            event.delete()
    return not failures


def _reason_to_give_up(event: NotificationEvent) -> str:
    if event.name not in heard_signals():
        return "nobody listens"
    # It was not given up at its last attempt, because the process ended meanwhile.
    return event.error or "the process ended while a receiver ran" if event.attempts > MAX_ATTEMPTS else ""


def _store_failure(event: NotificationEvent, error: str, *, give_up: bool) -> None:
    if give_up:
        logger.error(
            "signal %s of record %d given up after %d attempts: %s",
            *(event.name, event.record_id, event.attempts, error),
            extra={"event": "signal.given_up", "record_id": event.record_id, "signal": event.name},
        )
    # Anew, because the receivers may have taken longer than the delay that began with the claim.
    delay = timedelta(seconds=min(FIRST_DELAY_SECONDS * 2.0 ** (event.attempts - 1), LONGEST_DELAY_SECONDS))
    NotificationEvent.objects.filter(pk=event.pk).update(
        error=error[:191], received_by=event.received_by, next_attempt_at=None if give_up else Now() + delay
    )


def _receivers(name: str) -> Iterator[tuple[str, Receiver, bool]]:
    """Yield the name of each receiver, the receiver, and whether it is asynchronous. No two have the same name."""
    seen = Counter[str]()
    for receiver, is_async in RECORD_SIGNALS[name].live_receivers(NotificationRecord):
        path = f"{getattr(receiver, '__module__', '')}.{getattr(receiver, '__qualname__', type(receiver).__qualname__)}"
        seen[path] += 1
        yield (f"{path} {seen[path]}" if seen[path] > 1 else path), receiver, is_async


def _call(receiver: Receiver, is_async: bool, event: NotificationEvent) -> None:
    arguments = event.payload | {
        "user_id": user_key_field().to_python(event.payload["user_id"]),
        "record_id": event.record_id,
        "occurred_at": event.occurred_at,
    }
    function = async_to_sync(receiver) if is_async else receiver
    function(signal=RECORD_SIGNALS[event.name], sender=NotificationRecord, **arguments)
