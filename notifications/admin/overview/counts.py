"""How many there are now: each number by an index, bounded, and with a link to the list that shows them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.urls import reverse

from notifications.admin.situations import DAY, SITUATIONS
from notifications.claim import IN_INDEX_ORDER
from notifications.message import visible
from notifications.models import NotificationRecord, RejectedRequest, UserNotificationChannel

MOST = 10_000
"""Rows that are counted of each kind; beyond this the page says "at least", and stays fast in an outage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The records of one error code among those that were counted."""

    code: str
    """As it may be shown: it can come from elsewhere."""
    number: int
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A number, at least that where `capped`, and where to see what it counts."""

    number: int
    url: str
    capped: bool = False
    oldest: datetime | None = None
    """The earliest time its rows were due."""
    parts: list[Part] = field(default_factory=list)
    channels: frozenset[str] = frozenset()


def count_records() -> dict[str, Count]:
    """Return the count of each situation."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(IN_INDEX_ORDER)
        return {name: _situation(name) for name in SITUATIONS}


def _situation(name: str) -> Count:
    url = f"{reverse('admin:notifications_notificationrecord_changelist')}?{urlencode({'now': name})}"
    found: QuerySet[NotificationRecord, Any] = SITUATIONS[name].of(NotificationRecord.objects.all(), name)
    rows = list(found.values_list("last_error_code", "next_attempt_at", "channel")[: MOST + 1])
    codes = Counter(code for code, _due, _channel in rows[:MOST] if code)
    return Count(
        number=min(len(rows), MOST),
        capped=len(rows) > MOST,
        url=url,
        oldest=rows[0][1] if rows else None,
        parts=[
            Part(code=visible(code), number=number, url=f"{url}&{urlencode({'code': code})}")
            for code, number in codes.most_common()
        ],
        channels=frozenset(visible(channel) for _code, _due, channel in rows),
    )


def count_rejected() -> Count:
    """Return how many requests were refused in the last 24 hours."""
    url = reverse("admin:notifications_rejectedrequest_changelist")
    found = RejectedRequest.objects.filter(created_at__gt=Now() - DAY).order_by("-created_at")
    return _bounded(found, f"{url}?now=day")


def count_paused() -> Count:
    """Return how many channels are paused."""
    url = reverse("admin:notifications_usernotificationchannel_changelist")
    found = UserNotificationChannel.objects.filter(paused_at__isnull=False).order_by("paused_at")
    return _bounded(found, f"{url}?paused_at__isempty=0")


def _bounded(found: QuerySet[Any], url: str) -> Count:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(IN_INDEX_ORDER)
        number = len(found.values_list("pk")[: MOST + 1])
    return Count(number=min(number, MOST), capped=number > MOST, url=url)
