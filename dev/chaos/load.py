"""Load of the soak: other apps that request notifications all the time, over HTTP and by events."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from dev.other_app import other_app

EVENT_SECONDS = 8.0
"""An event whose record does not exist after this time is sent again: a Redis broker may lose it."""
KINDS = ("ok",) * 24 + ("slow",) * 12 + ("flaky",) * 6 + ("dead",) + ("none",)
WORDS = {"ok": ("ok",), "slow": ("slow:0.4",), "flaky": ("slow:0.9:status:503", "ok") * 10_000, "dead": ("code:9499",)}
EXPECTED = {"ok": "sent", "slow": "sent", "flaky": "sent", "dead": "dead", "none": "skipped"}


@dataclass(slots=True)
class Load:
    """Requests notifications until it is stopped, and records which requests were accepted.

    Args:
        port: of the web process.
        broker: Celery's.
        users: user id to kind of endpoint.
        rate: notifications a second.
        seed: of the choices.
        stored: returns those of the dedupe keys that have a record.
    """

    port: int
    broker: str
    users: dict[int, str]
    rate: float
    seed: int
    stored: Callable[[list[str]], set[str]]
    promised: set[str] = field(default_factory=set)
    """Dedupe keys of the requests that were answered, so they are committed."""
    undone: set[str] = field(default_factory=set)
    """Dedupe keys whose transaction was rolled back."""
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Start the threads that send requests."""
        for number in range(2):
            self._threads.append(threading.Thread(target=self._web_requests, args=(number,), daemon=True))
        self._threads.append(threading.Thread(target=self._events, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop, and return when every open request has been answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _web_requests(self, number: int) -> None:
        choice = random.Random(f"{self.seed}-{number}")  # noqa: S311
        began, made = time.monotonic(), 0
        while not self._stop.wait(0.05):
            due_count = int((time.monotonic() - began) * self.rate / 2) - made
            if due_count < 15:
                continue
            keys = [f"w{number}-{made + offset}" for offset in range(min(due_count, 100))]
            payloads = [self._payload(choice, key) for key in keys]
            undo = choice.random() < 0.05
            self._post(payloads, undo)
            made += len(keys)
            (self.undone if undo else self.promised).update(keys)

    def _post(self, payloads: list[dict[str, Any]], undo: bool) -> None:
        """Send the requests, and repeat them until they are answered. The dedupe keys make that safe."""
        body = json.dumps({"payloads": payloads, "undo": undo})
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("POST", "/request-some", body)
                if connection.getresponse().status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            finally:
                connection.close()
            time.sleep(0.1)

    def _events(self) -> None:
        choice = random.Random(f"{self.seed}-events")  # noqa: S311
        app = other_app(self.broker)
        app.conf.broker_transport_options = {"socket_timeout": 2, "socket_connect_timeout": 1, "max_retries": 0}
        waiting: dict[str, tuple[float, dict[str, Any]]] = {}
        made = 0
        while waiting or not self._stop.is_set():
            for _ in range(0 if self._stop.is_set() else 3):
                key = f"e-{made}"
                waiting[key] = (0.0, self._payload(choice, key))
                made += 1
            for key, (sent, payload) in list(waiting.items()):
                if time.monotonic() - sent > EVENT_SECONDS and self._send(app, payload):
                    waiting[key] = (time.monotonic(), payload)
            for key in self.stored(list(waiting)):
                self.promised.add(key)
                del waiting[key]
            time.sleep(1)

    def _send(self, app: Celery, payload: dict[str, Any]) -> bool:
        try:
            app.send_task("notification.feishu.requested", args=[payload], queue="notifications", retry=False)
        except Exception:  # whatever the broker's client raises: asked again later
            return False
        return True

    def _payload(self, choice: random.Random, key: str) -> dict[str, Any]:
        return {
            "user_id": choice.choice(list(self.users)),
            "preview_id": "preview",
            "dedupe_key": key,
            "target_url": "/assistant/1",
            "summary_text": "写周报改到周四上午",
            "requested_at": "2026-05-01T07:59:00Z",
        }
