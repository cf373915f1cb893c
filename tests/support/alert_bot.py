"""A Feishu bot on this machine that receives alerts, and stored times that are moved into the past."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from django.db.models import F

from notifications.models import Alert, NotificationRecord, RejectedRequest, UserNotificationChannel

TIMEOUT_SECONDS = 20.0
BOT_KEY = "canary-0123456789"


class AlertBot:
    """A custom bot. `texts` has what it received; it answers with `answer` when `may_answer` is set."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        """The same requests as a whole."""
        self.answer: tuple[int, bytes] = (200, b'{"code": 0, "msg": "success"}')
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.may_answer.set()
        bot = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                assert body["msg_type"] == "text"
                bot.bodies.append(body)
                bot.texts.append(body["content"]["text"])
                bot.asked.set()
                bot.may_answer.wait(TIMEOUT_SECONDS)
                status, content = bot.answer
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name in the base class
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Answer the requests that wait, and stop."""
        self.may_answer.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def options(self) -> dict[str, Any]:
        """The keys of NOTIFICATIONS that send alerts to this bot."""
        url = f"{self.origin}/open-apis/bot/v2/hook/{BOT_KEY}"
        return {"ALERT_FEISHU_WEBHOOK": url, "SANDBOX_ORIGINS": [self.origin]}


def move_times_back(**delta: float) -> None:
    """Move the times of alerts, records, rejected requests and pauses back, as if so much time had passed."""
    ago = timedelta(**delta)
    Alert.objects.update(
        first_seen=F("first_seen") - ago, last_seen=F("last_seen") - ago, sent_at=F("sent_at") - ago,
        resolved_at=F("resolved_at") - ago, resolution_sent_at=F("resolution_sent_at") - ago,
        claimed_until=F("claimed_until") - ago,
    )  # fmt: skip
    NotificationRecord.objects.update(updated_at=F("updated_at") - ago)
    RejectedRequest.objects.update(created_at=F("created_at") - ago)
    UserNotificationChannel.objects.update(paused_at=F("paused_at") - ago)
