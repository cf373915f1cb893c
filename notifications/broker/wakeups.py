"""The resident drain of a worker process, which waits for nudges in the first way that works here."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

from django.db import Error, InterfaceError, OperationalError, close_old_connections, connection

from notifications.broker.notify_wakeups import CLEAR, NotifyListener
from notifications.broker.redis_wakeups import RedisListener
from notifications.conf import service_options
from notifications.conf.options import NUDGE_NOTIFY, NUDGE_REDIS

logger = logging.getLogger("notifications.nudge")

IDLE_CHECK_SECONDS = 60.0
"""How often an idle drain checks its connection. Routers forget connections that are idle for some minutes."""


class ResidentDrain:
    """Two threads of a worker process: one listens for nudges, the other drains.

    The listener goes on while a drain runs, so that a new record is claimed at once. What it misses, a message of
    Celery or the sweep makes up for.

    Args:
        drain: Drains until nothing is due.
        received: Function that is called for each nudge through Redis while a drain runs.
        wakeup: Event that makes a running drain claim again.
        stopping: Event that is set when the worker stops.
    """

    def __init__(
        self,
        drain: Callable[[], None],
        *,
        received: Callable[[], object],
        wakeup: threading.Event,
        stopping: threading.Event,
    ) -> None:
        self._drain = drain
        self._received = received
        self._wakeup = wakeup
        self._stopping = stopping
        self._nudged = threading.Event()
        ways = service_options().nudge_ways
        self._notify = NotifyListener(stopping=stopping, on_wakeup=self.wake) if NUDGE_NOTIFY in ways else None
        self._redis = RedisListener(stopping=stopping, on_wakeup=self._wake_by_redis) if NUDGE_REDIS in ways else None
        self._listener = threading.Thread(target=self._listen, name="nudge-listener", daemon=True)
        self._drainer = threading.Thread(target=self._run, name="resident-drain", daemon=True)

    def start(self) -> None:
        """Start the threads. The first drain looks for what nobody was nudged for."""
        self._nudged.set()
        self._listener.start()
        self._drainer.start()

    @property
    def listening(self) -> bool:
        """Whether nudges reach this process. False if no way works here: then it must look at the table itself."""
        return self._listener.is_alive()

    def wake(self) -> None:
        """Start a drain, or make the running one claim again."""
        self._wakeup.set()
        self._nudged.set()

    def stop(self, timeout: float) -> None:
        """Wait until the sends in flight are settled. `stopping` must be set.

        Args:
            timeout: Seconds to wait at most.
        """
        self._nudged.set()
        self._drainer.join(timeout)

    def before_claim(self) -> str:
        """Return the statement that clears the flag of the pending notification, if this process can listen for it."""
        return CLEAR if self._notify and self._notify.able else ""

    def _listen(self) -> None:
        """Listen in the first way that works here. Without one, Celery's messages and the sweep start drains."""
        any(listener.listen() for listener in (self._notify, self._redis) if listener)

    def _wake_by_redis(self) -> None:
        self._received()
        self.wake()

    def _run(self) -> None:
        while not self._stopping.is_set():
            nudged = self._nudged.wait(IDLE_CHECK_SECONDS)
            self._nudged.clear()
            try:
                if nudged and not self._stopping.is_set():
                    self._drain_now()
            # Whatever it was, the thread must go on: the listener takes the nudges, and the sweep would come late.
            except Exception as error:
                logger.warning("drain failed: %s", type(error).__name__, extra={"event": "drain.failed"})
            self._prepare_connection()
        connection.close()

    def _drain_now(self) -> None:
        """Drain without checking the connection first, which would take a round trip."""
        try:
            self._drain()
        except (OperationalError, InterfaceError):  # PostgreSQL closed it while it was idle
            connection.close()
            self._drain()

    def _prepare_connection(self) -> None:
        """Check or renew the connection while nobody waits for it, so that the next drain finds it ready."""
        with contextlib.suppress(Error):
            close_old_connections()
            connection.ensure_connection()
            if not connection.is_usable():
                connection.close()
                connection.ensure_connection()
            connection.health_check_done = True  # type: ignore[attr-defined]
