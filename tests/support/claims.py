"""Claimed rows without a database."""

from __future__ import annotations

import uuid

from notifications.delivery.claim import Claimed
from notifications.providers.base import SendRequest
from notifications.states import Status

REQUEST = SendRequest(
    notification_id=1,
    user_id=42,
    trigger_id="",
    preview_id="prv-1",
    trigger_type="",
    target_type="",
    target_id=0,
    target_url="/a",
    message_text="text\n/a",
    fallback_used=False,
    attempt_count=1,
)


def make_claim(
    attempt: int = 1, limit: int = 5, *, previous: Status = Status.PENDING, exhausted: bool = False, replay: int = 0
) -> Claimed:
    return Claimed(
        record_id=1,
        lease_token=str(uuid.uuid4()),
        channel="feishu",
        dedupe_key="k1",
        user_id=42,
        trace_id="",
        attempt_count=attempt,
        priority=1,
        max_attempts=limit,
        round=replay,
        exhausted=exhausted,
        request=REQUEST,
        endpoint=None,
        previous_status=previous,
        previous_lease=None,
        lease_deadline=0.0,
    )
