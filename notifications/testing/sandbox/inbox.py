"""The scripts and the recorded deliveries of a sandbox. All its threads share them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from notifications.testing.sandbox import webhook_types
from notifications.testing.sandbox.answers import REPEATED, ScriptedAnswer
from notifications.testing.sandbox.journal import Delivery, Journal, select

OK = ScriptedAnswer.parse("ok")
CLIENT_CHECK_SECONDS = 0.1
"""Interval at which a held request checks whether its client has closed the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A recorded delivery that is not answered yet."""

    key: str
    answer: ScriptedAnswer
    release_count: int
    """Number of releases of its key before it arrived. A later release is for this delivery."""


class Inbox:
    """Selects the answers by script and records the deliveries. Safe to use from many threads."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._journal: Journal | None = None
        self.ahead = 0.0
        """Seconds by which the receiver's clock is ahead. Signatures and the Date header use that clock."""
        self.connections = 0
        """Number of connections since the sandbox was created."""
        self._scripts: dict[str, list[ScriptedAnswer]] = {}
        self._secrets: dict[str, str] = {}
        self._accepted: set[tuple[str, str]] = set()
        self._deliveries: list[Delivery] = []
        self._releases: Counter[str | None] = Counter()
        self._changed = threading.Condition()

    def script(self, key: str, *words: str) -> None:
        """Set the answers to one key from now on.

        Args:
            key: Last part of the webhook's path.
            *words: Answer words (see `ScriptedAnswer.parse`), one for each request. The last one repeats. Without
                words, every answer is ``ok``.

        Raises:
            ValueError: A word is unknown.
        """
        answers = [ScriptedAnswer.parse(word) for word in words]
        with self._changed:
            self._scripts[key] = answers

    def sign(self, key: str, secret: str) -> None:
        """Accept only requests to this key that have a valid signature.

        Args:
            key: Last part of the webhook's path.
            secret: The receiver's signing secret.
        """
        with self._changed:
            self._secrets[key] = secret

    def release(self, key: str | None = None) -> None:
        """Answer the requests that are on ``hold`` now.

        Args:
            key: Only requests to this key; None for all.
        """
        with self._changed:
            self._releases[key] += 1
            self._changed.notify_all()

    def deliveries(
        self, key: str | None = None, notification_id: int | None = None, accepted: bool | None = None
    ) -> list[Delivery]:
        """Return the deliveries in the order of their arrival.

        Args:
            key: Only deliveries to this key.
            notification_id: Only deliveries of this notification.
            accepted: Only accepted (True) or refused (False) deliveries.
        """
        with self._changed:
            return select(self._deliveries, key=key, notification_id=notification_id, accepted=accepted)

    def wait_for(
        self, wanted: int | Callable[[list[Delivery]], bool], timeout: float = 10.0, *, key: str | None = None
    ) -> list[Delivery]:
        """Wait until a number of deliveries has arrived, or a condition is true.

        Args:
            wanted: Number of deliveries, or a condition on the list of deliveries.
            timeout: Seconds.
            key: Only deliveries to this key.

        Returns:
            The deliveries.

        Raises:
            TimeoutError: The time is over. The message lists what arrived.
        """
        enough = (lambda deliveries: len(deliveries) >= wanted) if isinstance(wanted, int) else wanted
        with self._changed:
            if self._changed.wait_for(lambda: enough(select(self._deliveries, key=key)), timeout):
                return select(self._deliveries, key=key)
            deliveries = select(self._deliveries, key=key)
        expected = f"{wanted} deliveries" if isinstance(wanted, int) else "the condition"
        where = f" to {key}" if key else ""
        last = [f"  {item.key}: notification {item.notification_id}, {item.answer}" for item in deliveries[-10:]]
        raise TimeoutError("\n".join([f"waited {timeout} s for {expected}{where}; {len(deliveries)} arrived", *last]))

    def arrive(self, key: str, raw: bytes, headers: dict[str, str], webhook_type: str = "flow") -> Arrival:
        """Record a request and select its answer. When this returns, the journal has the request on disk.

        Args:
            key: Last part of the path.
            raw: The body.
            headers: Headers as sent.
            webhook_type: One of the names in `webhook_types`.
        """
        body = _parse_json(raw)
        number = body.get("notification_id") if isinstance(body, dict) else None
        with self._changed:
            answer = self._next_answer(key, raw, headers, webhook_type)
            delivery = Delivery(
                at=time.time(),
                key=key,
                notification_id=number if isinstance(number, int) else None,
                answer=answer.word,
                accepted=answer.accepted,
                body=body,
                headers=headers,
            )
            self._deliveries.append(delivery)
            journal = self._journal
            line = journal.append(delivery) if journal else 0
            release_count = self._release_count(key)
            self._changed.notify_all()
        if journal:
            journal.sync(line)
        return Arrival(key=key, answer=answer, release_count=release_count)

    def _next_answer(self, key: str, raw: bytes, headers: dict[str, str], webhook_type: str) -> ScriptedAnswer:
        """Return the next answer. A wrong signature and a repeated request have precedence over the script."""
        if key in self._secrets:
            now = time.time() + self.ahead
            if refusal := webhook_types.check_signature(webhook_type, self._secrets[key], headers, raw, now):
                return ScriptedAnswer.parse(refusal)
        request_id = webhook_types.find_request_id(webhook_type, headers)
        if (key, request_id) in self._accepted:
            return REPEATED
        script = self._scripts.get(key) or [OK]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if request_id and answer.accepted:
            self._accepted.add((key, request_id))
        return answer

    def hold(self, arrival: Arrival, seconds: float, client_left: Callable[[], bool]) -> None:
        """Wait until a request is released, its client closed the connection, or the sandbox stops.

        Args:
            arrival: The request.
            seconds: The longest wait.
            client_left: Returns True if the client has closed the connection.
        """
        deadline = time.monotonic() + seconds
        while not (client_left() or self.stopping.is_set() or time.monotonic() > deadline):
            with self._changed:
                if self._changed.wait_for(
                    lambda: self._release_count(arrival.key) != arrival.release_count, CLIENT_CHECK_SECONDS
                ):
                    return

    def _release_count(self, key: str) -> int:
        return self._releases[key] + self._releases[None]


def _parse_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
