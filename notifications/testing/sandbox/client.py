"""The sandbox's methods for other processes, over HTTP."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from notifications.testing.sandbox.journal import Delivery


class SandboxClient:
    """Talks to a sandbox in another process.

    Args:
        origin: its ``http://HOST:PORT``.
        timeout: seconds one request may take.
    """

    def __init__(self, origin: str, timeout: float = 10.0) -> None:
        self.origin = origin
        self._address = urlsplit(origin).netloc
        self._timeout = timeout

    def script(self, key: str, *words: str) -> None:
        """Set how the sandbox answers one key from now on.

        Args:
            key: the last part of the webhook's path.
            *words: one for each request; the last one repeats.

        Raises:
            ValueError: there is no such answer.
        """
        self._request("PUT", f"/_control/{quote(key, safe='')}", list(words))

    def release(self, key: str | None = None) -> None:
        """Let requests go that are on ``hold``.

        Args:
            key: only those to this key.
        """
        self._request("POST", "/_release" if key is None else f"/_control/{quote(key, safe='')}/release")

    def deliveries(
        self, key: str | None = None, notification_id: int | None = None, accepted: bool | None = None
    ) -> list[Delivery]:
        """List what has arrived, in order.

        Args:
            key: only those to this key.
            notification_id: only those of this notification.
            accepted: only those taken (True) or not taken (False).
        """
        flag = None if accepted is None else str(accepted).lower()
        wanted = {"key": key, "notification_id": notification_id, "accepted": flag}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        return [Delivery(**item) for item in self._request("GET", f"/_deliveries?{query}")]

    def _request(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=self._timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            answer = response.read().decode()
        finally:
            connection.close()
        if response.status >= 400:
            raise ValueError(answer)
        return json.loads(answer)
