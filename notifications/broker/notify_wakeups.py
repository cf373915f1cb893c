"""Wakes a drain through PostgreSQL's LISTEN and NOTIFY.

The notification is sent after the commit of the caller, by a statement of its own, and only if no wake-up is pending. A
commit with a notification takes a lock of the whole server; the caller's commit never does.

Every listener receives each notification. The first listener wakes its drain at once. The others look after a moment
whether the wake-up is still pending, and then wake theirs. So an idle fleet does not run as many drains as it has
processes, and one that is busy or dead holds nothing up.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, ProgrammingError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.postgresql.psycopg_any import is_psycopg3

from notifications.conf import service_options
from notifications.sql import load_sql

logger = logging.getLogger("notifications.nudge")

CHANNEL = "notification_wakeups"
"""Name of the channel of LISTEN and NOTIFY."""
ALL = "all"
"""Payload of a notification that wakes every drain at once."""
STEP_IN_SECONDS = 0.02
"""How long the other listeners leave a wake-up to the first one."""
RETRY_SECONDS = 1.0
"""Pause before a listener connects again."""
PROBE_SECONDS = 5.0
"""How long a new listener waits for the notification that it sends to itself."""
TICK_SECONDS = 1.0
"""How often a listener looks whether its worker stops."""
KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""Options of libpq, in seconds and milliseconds: a listener notices within half a minute that its server is gone."""

CLEAR = load_sql("notifications.broker", "clear_wakeup")
"""Goes before a claim, in the same message."""
_NOTIFY = load_sql("notifications.broker", "notify_listener")
_NOTIFY_ALL = load_sql("notifications.broker", "notify_all")
_LOOK = load_sql("notifications.broker", "look_at_wakeup")
_COUNT_LISTENERS = load_sql("notifications.broker", "count_listeners")
_ANNOUNCE = "SELECT pg_advisory_lock_shared(1852797033, 1)"
_EVENT_FAILED = {"event": "nudge.failed"}


def notify_listeners(*, to_all: bool = False) -> bool | None:
    """Wake the listeners, unless a wake-up is pending already.

    Args:
        to_all: Wake the drains of all listeners at once, and even if a wake-up is pending.

    Returns:
        True if they were woken; False if a wake-up is pending; None if there is no listener, or if this thread is in a
        transaction: the notification would wait for its end, and an error would undo it.

    Raises:
        Error: PostgreSQL is away, or its queue of notifications is full.
    """
    if connection.in_atomic_block or not connection.get_autocommit():
        return None
    [outcome] = _fetch(connection, _NOTIFY_ALL if to_all else _NOTIFY)
    return {"woken": True, "pending": False}.get(outcome)


def count_notify_listeners() -> int:
    """Return how many workers listen for notifications.

    Raises:
        Error: PostgreSQL is away.
    """
    [count] = _fetch(connection, _COUNT_LISTENERS)
    return int(count)


class NotifyListener:
    """Listens for notifications over a connection of its own. It is used by one thread.

    Args:
        stopping: Event that is set when the worker stops.
        on_wakeup: Function that is called for each wake-up, and after each connect, because what was sent before that
            is lost.
    """

    def __init__(self, *, stopping: threading.Event, on_wakeup: Callable[[], object]) -> None:
        self._stopping = stopping
        self._on_wakeup = on_wakeup
        self._away = False
        self.able = False
        """Whether this connection can listen, and the flag be cleared. It stays true while PostgreSQL is away."""

    def listen(self) -> bool:
        """Listen until the worker stops. Connect again after each failure.

        Returns:
            False if this connection cannot listen: a pooler shares it, or the migration is missing.
        """
        while not self._stopping.is_set():
            listening = _own_connection()
            try:
                self.able = _begin(listening)
                if not self.able:
                    return False
                self._log_connected()
                self._on_wakeup()
                self._follow(listening)
            except ProgrammingError as error:  # the sequence is missing, or the role may not use it
                self.able = False
                logger.warning("cannot listen for notifications: %s", type(error).__name__, extra=_EVENT_FAILED)
                return False
            except Error as error:
                self._log_away(error)
                self._stopping.wait(RETRY_SECONDS)
            finally:
                listening.close()
        return True

    def _follow(self, listening: BaseDatabaseWrapper) -> None:
        """Take wake-ups until the worker stops."""
        receive = _receiver(listening)
        interval = service_options().nudge_ttl
        _pending, first, _usage = _fetch(listening, _LOOK, {"first": False})
        next_look = time.monotonic() + interval
        while not self._stopping.is_set():
            payloads = receive()
            if payloads and (first or ALL in payloads):
                self._on_wakeup()
            elif payloads:
                next_look = min(next_look, time.monotonic() + STEP_IN_SECONDS)
            elif (left := next_look - time.monotonic()) > 0:
                _wait(listening, min(TICK_SECONDS, left))
            else:
                # Found pending: the first listener could not claim, or a notification was lost.
                pending, first, _usage = _fetch(listening, _LOOK, {"first": first})
                next_look = time.monotonic() + interval
                if pending:
                    self._on_wakeup()

    def _log_connected(self) -> None:
        logger.info("listening for notifications of PostgreSQL", extra={"event": "nudge.listening"})
        self._away = False

    def _log_away(self, error: Error) -> None:
        if not self._away:
            logger.warning("listener disconnected: %s", type(error).__name__, extra=_EVENT_FAILED)
        self._away = True


def _own_connection() -> BaseDatabaseWrapper:
    """Return a connection beside Django's, not connected yet. It is in no pool and notices a dead server."""
    own: BaseDatabaseWrapper = connections[DEFAULT_DB_ALIAS].copy()
    options = own.settings_dict["OPTIONS"]
    options.pop("pool", None)
    for name, value in KEEPALIVE.items():
        options.setdefault(name, value)
    own.settings_dict["CONN_HEALTH_CHECKS"] = False
    return own


def _begin(listening: BaseDatabaseWrapper) -> bool:
    """Connect and listen. Return whether notifications of others arrive; nothing is left behind if they do not."""
    listening.ensure_connection()
    raw: Any = listening.connection
    # A pooler such as PgBouncer invents the number. This look leaves nothing behind on a connection that others use.
    [number] = _fetch(listening, "SELECT pg_backend_pid()")
    if raw.info.backend_pid != number or not _probe(listening, f"{CHANNEL}_{number}"):
        return False
    _execute(listening, CLEAR)
    _execute(listening, f"LISTEN {CHANNEL}")
    _execute(listening, _ANNOUNCE)
    return True


def _probe(listening: BaseDatabaseWrapper, channel: str) -> bool:
    """Send a notification over a second connection, and return whether it arrives at the first."""
    receive = _receiver(listening)
    _execute(listening, f"LISTEN {channel}")
    other = _own_connection()
    try:
        _execute(other, "SELECT pg_notification_queue_usage()")  # see look_at_wakeup.sql
        _execute(other, f"NOTIFY {channel}")
    finally:
        other.close()
    deadline = time.monotonic() + PROBE_SECONDS
    while not (arrived := bool(receive())) and (left := deadline - time.monotonic()) > 0:
        _wait(listening, left)
    _execute(listening, f"UNLISTEN {channel}")
    return arrived


def _receiver(listening: BaseDatabaseWrapper) -> Callable[[], list[str]]:
    """Return a function that returns the payloads that came since its last call.

    It also sees those that came with the answer to a statement: they are in the driver's buffer, and the socket does
    not become readable for them.
    """
    raw: Any = listening.connection
    payloads: list[str] = []

    def receive_psycopg2() -> list[str]:
        with listening.wrap_database_errors:
            raw.poll()
        received = [notification.payload for notification in raw.notifies]
        raw.notifies.clear()
        return received

    def receive_psycopg3() -> list[str]:
        with listening.wrap_database_errors:
            raw.pgconn.consume_input()
            while notification := raw.pgconn.notifies():
                payloads.append(notification.extra.decode())
        received = payloads.copy()
        payloads.clear()
        return received

    if is_psycopg3:
        raw.add_notify_handler(lambda notification: payloads.append(notification.payload))  # came during a statement
        return receive_psycopg3
    return receive_psycopg2


def _wait(listening: BaseDatabaseWrapper, seconds: float) -> None:
    """Wait for bytes of the server."""
    raw: Any = listening.connection
    ready = select.poll()
    ready.register(raw.fileno(), select.POLLIN)
    ready.poll(max(0.0, seconds) * 1000)


def _execute(database: BaseDatabaseWrapper, statement: str) -> None:
    with database.cursor() as cursor:
        cursor.execute(statement)


def _fetch(database: Any, statement: str, parameters: dict[str, Any] | None = None) -> tuple[Any, ...]:
    """Return the only row of a query."""
    with database.cursor() as cursor:
        cursor.execute(statement, parameters)
        row: tuple[Any, ...] = cursor.fetchone()
    return row
