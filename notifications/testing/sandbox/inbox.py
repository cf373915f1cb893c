"""What the sandbox is told to answer, and what has arrived: shared by all its threads."""

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
LOOK_SECONDS = 0.1  # how soon a held request notices that its client has left


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A recorded delivery on its way to its answer."""

    key: str
    answer: ScriptedAnswer
    turn: int
    """How often its key had been released when it arrived: any later release is for it."""


class Inbox:
    """Scripts and deliveries."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._journal: Journal | None = None
        self.ahead = 0.0
        """Seconds by which the receiver's clock is ahead of ours."""
        self._scripts: dict[str, list[ScriptedAnswer]] = {}
        self._secrets: dict[str, str] = {}
        self._taken: set[tuple[str, str]] = set()
        self._deliveries: list[Delivery] = []
        self._released: Counter[str | None] = Counter()
        self._changed = threading.Condition()

    def script(self, key: str, *words: str) -> None:
        """Set how one key answers from now on.

        Args:
            key: the last part of the webhook's path.
            *words: see ScriptedAnswer.parse(); one for each request, the last one repeats. None at all means ``ok``.

        Raises:
            ValueError: there is no such answer.
        """
        answers = [ScriptedAnswer.parse(word) for word in words]
        with self._changed:
            self._scripts[key] = answers

    def sign(self, key: str, secret: str) -> None:
        """Take only requests to this key that are signed as its webhook_type wants it.

        Args:
            key: the last part of the webhook's path.
            secret: the receiver's.
        """
        with self._changed:
            self._secrets[key] = secret

    def release(self, key: str | None = None) -> None:
        """Let the requests go that are on ``hold`` now.

        Args:
            key: only those to this key.
        """
        with self._changed:
            self._released[key] += 1
            self._changed.notify_all()

    def deliveries(
        self, key: str | None = None, notification_id: int | None = None, accepted: bool | None = None
    ) -> list[Delivery]:
        """List what has arrived, in order.

        Args:
            key: only those to this key.
            notification_id: only those of this notification.
            accepted: only those taken (True) or not taken (False).
        """
        with self._changed:
            return select(self._deliveries, key=key, notification_id=notification_id, accepted=accepted)

    def wait_for(
        self, wanted: int | Callable[[list[Delivery]], bool], timeout: float = 10.0, *, key: str | None = None
    ) -> list[Delivery]:
        """Wait until enough has arrived.

        Args:
            wanted: how many deliveries, or what must be true of the list of them.
            timeout: seconds.
            key: look only at those to this key.

        Returns:
            The deliveries looked at.

        Raises:
            TimeoutError: it did not come to that; the message says what arrived.
        """
        enough = (lambda found: len(found) >= wanted) if isinstance(wanted, int) else wanted
        with self._changed:
            if self._changed.wait_for(lambda: enough(select(self._deliveries, key=key)), timeout):
                return select(self._deliveries, key=key)
            found = select(self._deliveries, key=key)
        what = f"{wanted} deliveries" if isinstance(wanted, int) else "the condition"
        where = f" to {key}" if key else ""
        last = [f"  {item.key}: notification {item.notification_id}, {item.answer}" for item in found[-10:]]
        raise TimeoutError("\n".join([f"waited {timeout} s for {what}{where}; {len(found)} arrived", *last]))

    def arrive(self, key: str, raw: bytes, headers: dict[str, str], webhook_type: str = "flow") -> Arrival:
        """Record a request; it is in the journal, on disk, when this returns.

        Args:
            key: the last part of the path.
            raw: the body.
            headers: as sent.
            webhook_type: which of the vendor's it came by.
        """
        body = _parsed(raw)
        number = body.get("notification_id") if isinstance(body, dict) else None
        with self._changed:
            answer = self._answer(key, raw, headers, webhook_type)
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
            turn = self._turn(key)
            self._changed.notify_all()
        if journal:
            journal.sync(line)
        return Arrival(key=key, answer=answer, turn=turn)

    def _answer(self, key: str, raw: bytes, headers: dict[str, str], webhook_type: str) -> ScriptedAnswer:
        """Return the next answer: a signature is checked first, and what was taken before is not taken again."""
        if key in self._secrets:
            now = time.time() + self.ahead
            if refusal := webhook_types.refusal(webhook_type, self._secrets[key], headers, raw, now):
                return ScriptedAnswer.parse(refusal)
        known = key, webhook_types.known_by(webhook_type, headers)
        if known in self._taken:
            return REPEATED
        script = self._scripts.get(key) or [OK]
        answer = script.pop(0) if len(script) > 1 else script[0]
        if known[1] and answer.accepted:
            self._taken.add(known)
        return answer

    def hold(self, arrival: Arrival, seconds: float, client_left: Callable[[], bool]) -> None:
        """Wait until a request is released, its client has left, or the sandbox stops.

        Args:
            arrival: the request.
            seconds: the longest wait.
            client_left: tells whether there is nobody to answer any more.
        """
        deadline = time.monotonic() + seconds
        while not (client_left() or self.stopping.is_set() or time.monotonic() > deadline):
            with self._changed:
                if self._changed.wait_for(lambda: self._turn(arrival.key) != arrival.turn, LOOK_SECONDS):
                    return

    def _turn(self, key: str) -> int:
        return self._released[key] + self._released[None]


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
