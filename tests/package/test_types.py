"""A type checker in another project sees our types: it accepts right use and refuses wrong use."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from notifications.ingest.payload import FIELDS, NotificationPayload
from tests.support.installation import pip, virtual_environment

CONSUMER = """
from datetime import UTC, datetime
from uuid import UUID

from notifications.api import Accepted, InvalidNotification, NotificationPayload
from notifications.api import request_notification, request_notifications
from notifications.testing import assert_notified, deliver_notifications, using_memory

payload: NotificationPayload = {
    "user_id": 42,
    "dedupe_key": "42:moved:7",
    "preview_id": "p-1",
    "target_url": "/tasks/7",
    "requested_at": datetime.now(UTC),
}
accepted: Accepted = request_notification(payload, deliver_at=datetime.now(UTC))
many: list[Accepted] = request_notifications([payload, {**payload, "dedupe_key": "42:moved:8", "trace_id": "t-1"}])
try:
    request_notification({**payload, "requested_at": "2026-05-01T08:00:00Z"})
except InvalidNotification as error:
    reasons = [f"{field}: {reason}" for field, reason in error.errors]
number: int = accepted.record_id
with using_memory() as provider:
    sent: int = deliver_notifications().sent
    texts: list[str] = [request.message_text for request in provider.requests]
assert_notified(42, status="sent")
assert_notified(UUID("0190163d-8694-739b-aea5-966c26f8ad91"), status="sent")

request_notification({"user_id": 42})  # refused: typeddict-item
request_notification({**payload, "user_id": "42"})  # refused: typeddict-item
request_notification({**payload, "sumary_text": "moved"})  # refused: typeddict-unknown-key
request_notification("42:moved:7")  # refused: arg-type
request_notification(payload, deliver_at="tomorrow")  # refused: arg-type
request_notification(payload, delay=3)  # refused: call-arg
request_notifications(payload)  # refused: arg-type
accepted.reused = True  # refused: misc
accepted.sent  # refused: attr-defined
assert_notified(4.2)  # refused: arg-type
"""


def test_right_use_is_accepted_and_wrong_use_refused(wheel: Path, tmp_path: Path) -> None:
    python = virtual_environment(tmp_path / "env")
    pip("install", "--prefix", str(tmp_path / "env"), str(wheel))
    (tmp_path / "consumer.py").write_text(CONSUMER)
    wanted = [
        (str(line), found[1])
        for line, text in enumerate(CONSUMER.splitlines(), 1)
        if (found := re.search("# refused: (.+)", text))
    ]

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(python), "consumer.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert re.findall(r"^consumer\.py:(\d+): error: .*\[(.+)\]$", done.stdout, re.MULTILINE) == wanted, done.stdout
    assert f"Found {len(wanted)} errors in 1 file" in done.stdout


def test_the_payloads_type_has_the_fields_that_are_accepted() -> None:
    assert NotificationPayload.__annotations__.keys() == FIELDS
