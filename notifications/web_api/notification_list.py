"""The endpoint that lists a user's own notifications."""

from __future__ import annotations

from typing import Annotated

from django.db.models import BigIntegerField
from django.http import HttpRequest
from ninja import Query, Router
from ninja.errors import ValidationError

from notifications.models import NotificationRecord
from notifications.web_api.schemas import Errors, NotificationOut, PageOut
from notifications.web_api.session_auth import user_of

LARGEST_ID = BigIntegerField.MAX_BIGINT

router = Router(tags=["notifications"])

MAX_PAGE_SIZE = 100
COLUMNS = (
    *("id", "status", "summary_text", "fallback_text", "fallback_used", "target_url", "trigger_type", "priority"),
    *("attempt_count", "max_attempts", "next_attempt_at", "last_error_code", "created_at", "sent_at"),
)
"""Columns that are read. The endpoint's requests and responses are not shown to users."""


@router.get(
    "",
    operation_id="listNotifications",
    summary="List the notifications",
    response={200: PageOut, 401: Errors, 422: Errors},
)
def list_notifications(
    request: HttpRequest,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Maximum number of notifications.")] = 20,
    before: Annotated[int, Query(ge=1, le=LARGEST_ID, description="`next` of the previous page.")] = LARGEST_ID,
) -> PageOut:
    """List the user's own notifications, newest first."""
    # The framework drops unknown parameters, and a mistyped one would answer with the defaults.
    if unknown := request.GET.keys() - {"limit", "before"}:
        raise ValidationError([{"type": "extra_forbidden", "loc": ("query", name)} for name in sorted(unknown)])
    records = NotificationRecord.objects.filter(user_id=user_of(request).pk, id__lt=before)
    rows = list(records.order_by("-id").only(*COLUMNS)[: limit + 1])
    page = rows[:limit]
    return PageOut(
        items=[NotificationOut.from_record(record) for record in page], next=page[-1].pk if len(rows) > limit else None
    )
