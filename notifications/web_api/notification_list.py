"""A user's own notifications."""

from __future__ import annotations

from typing import Annotated

from django.db.models import BigIntegerField
from django.http import HttpRequest
from ninja import Query, Router

from notifications.models import NotificationRecord
from notifications.web_api.schemas import Errors, NotificationOut, PageOut
from notifications.web_api.session_auth import user_of

LARGEST_ID = BigIntegerField.MAX_BIGINT

router = Router(tags=["notifications"])

MOST = 100
SHOWN = (
    *("id", "status", "summary_text", "fallback_text", "fallback_used", "target_url", "trigger_type", "attempt_count"),
    *("max_attempts", "next_attempt_at", "last_error_code", "created_at", "sent_at"),
)
"""Columns that are read; what an endpoint was sent and answered is not among them."""


@router.get(
    "",
    operation_id="listNotifications",
    summary="List the notifications",
    response={200: PageOut, 401: Errors, 422: Errors},
)
def recent(
    request: HttpRequest,
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 20,
    before: Annotated[int, Query(ge=1, le=LARGEST_ID, description="`next` of the page before.")] = LARGEST_ID,
) -> PageOut:
    """List the user's own notifications, newest first."""
    mine = NotificationRecord.objects.filter(user_id=user_of(request).pk, id__lt=before)
    found = list(mine.order_by("-id").only(*SHOWN)[: limit + 1])
    page = found[:limit]
    return PageOut(
        items=[NotificationOut.of(record) for record in page], next=page[-1].pk if len(found) > limit else None
    )
