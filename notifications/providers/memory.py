"""A provider for tests that sends nothing. It keeps the requests and returns scripted results."""

from __future__ import annotations

import threading
from collections import deque
from typing import ClassVar

from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.states import Outcome


class MemoryProvider:
    """A test double. Without a script, every request succeeds.

    Use it with `NOTIFICATIONS={"PROVIDERS": {"feishu": "notifications.providers.memory.MemoryProvider"}}` and
    `get_provider("feishu")`, or with `notifications.testing.using_memory()`.
    """

    channel: ClassVar[str] = "memory"

    def __init__(self) -> None:
        self.requests: list[SendRequest] = []
        """Every request, in the order of the calls."""
        self._script: deque[SendResult | Exception] = deque()
        self._lock = threading.Lock()

    def script(self, *results: SendResult | Exception) -> None:
        """Set the results of the next calls.

        Args:
            *results: One for each call, in order. An exception is raised. Calls after the last one succeed.
        """
        with self._lock:
            self._script = deque(results)

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Keep the request and return the next scripted result.

        Args:
            request: The message.
            endpoint: Not used.

        Raises:
            Exception: The next scripted result is an exception.
        """
        with self._lock:
            self.requests.append(request)
            result = self._script.popleft() if self._script else SendResult(outcome=Outcome.SUCCESS)
        if isinstance(result, Exception):
            raise result
        return result
