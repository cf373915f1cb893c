"""A provider that sends nothing: answers come from a script, requests are kept. For tests, ours and yours."""

from __future__ import annotations

import threading
from collections import deque
from typing import ClassVar

from notifications.providers.base import Endpoint, SendRequest, SendResult
from notifications.states import Outcome


class MemoryProvider:
    """Scripted double. Without a script every request succeeds.

    Use it with `NOTIFICATIONS={"PROVIDERS": {"feishu": "notifications.providers.memory.MemoryProvider"}}` and
    `get_provider("feishu")`.
    """

    channel: ClassVar[str] = "memory"

    def __init__(self) -> None:
        self.requests: list[SendRequest] = []
        """Every request, in the order of the calls."""
        self._script: deque[SendResult | Exception] = deque()
        self._lock = threading.Lock()

    def script(self, *answers: SendResult | Exception) -> None:
        """Set the answers of the next calls; an exception is raised."""
        with self._lock:
            self._script = deque(answers)

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Keep the request and give the next scripted answer."""
        with self._lock:
            self.requests.append(request)
            answer = self._script.popleft() if self._script else SendResult(outcome=Outcome.SUCCESS)
        if isinstance(answer, Exception):
            raise answer
        return answer
