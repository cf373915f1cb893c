"""A client for a sandbox in another process."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from notifications.testing.sandbox.journal import Delivery


class SandboxClient:
    """Controls a sandbox in another process over HTTP. The methods are those of `Sandbox`.

    Args:
        origin: The sandbox's ``http://HOST:PORT``.
        timeout: Seconds that one request may take.
    """

    def __init__(self, origin: str, timeout: float = 10.0) -> None:
        self.origin = origin
        self._address = urlsplit(origin).netloc
        self._timeout = timeout

    def script(self, key: str, *words: str) -> None:
        """Set the answers to one key from now on.

        Args:
            key: Last part of the webhook's path.
            *words: Answer words, one for each request. The last one repeats.

        Raises:
            ValueError: A word is unknown.
        """
        self._request("PUT", f"/_control/{quote(key, safe='')}", list(words))

    def release(self, key: str | None = None) -> None:
        """Answer the requests that are on ``hold`` now.

        Args:
            key: Only requests to this key; None for all.
        """
        self._request("POST", "/_release" if key is None else f"/_control/{quote(key, safe='')}/release")

    def deliveries(
        self, key: str | None = None, notification_id: int | None = None, accepted: bool | None = None
    ) -> list[Delivery]:
        """Return the deliveries in the order of their arrival.

        Args:
            key: Only deliveries to this key.
            notification_id: Only deliveries of this notification.
            accepted: Only accepted (True) or refused (False) deliveries.
        """
        flag = None if accepted is None else str(accepted).lower()
        filters = {"key": key, "notification_id": notification_id, "accepted": flag}
        query = urlencode({name: value for name, value in filters.items() if value is not None})
        return [Delivery(**item) for item in self._request("GET", f"/_deliveries?{query}")]

    def _request(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(self._address, timeout=self._timeout)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 400:
            raise ValueError(text)
        return json.loads(text)
