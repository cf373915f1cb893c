"""How many there are now: each number by an index, bounded, and with a link to the list that shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.urls import reverse

from notifications.admin.current_states import DAY
from notifications.content.text import escape_invisible
from notifications.models import RejectedRequest, UserNotificationChannel
from notifications.sql import FORBID_SORT
from notifications.states import SCHEDULED, Status

MOST = 5000
"""Rows of a kind that are looked at; beyond this the page says "at least", and stays fast in an outage."""

# The condition stands inside the bound, so that no number of rows makes this slow. Each range is one of an index.
_RANGE = """
SELECT status, last_error_code, channel, count(*), min(next_attempt_at)
FROM (
    SELECT status, last_error_code, channel, next_attempt_at FROM notification_records
    WHERE {where} ORDER BY {order} LIMIT %(most)s
) AS found
GROUP BY status, last_error_code, channel
"""
_DUE = _RANGE.format(where="next_attempt_at <= statement_timestamp()", order="next_attempt_at, id")
_AHEAD = _RANGE.format(where="next_attempt_at > statement_timestamp()", order="next_attempt_at, id")
_DEAD = _RANGE.format(
    where="status = 'dead' AND updated_at > statement_timestamp() - interval '1 day'", order="updated_at DESC, id DESC"
)
_KINDS: dict[str, tuple[str, tuple[Status, ...]]] = {
    "due": (_DUE, SCHEDULED),
    "vanished": (_DUE, (Status.SENDING,)),
    "sending": (_AHEAD, (Status.SENDING,)),
    "retry": (_AHEAD, (Status.FAILED,)),
    "scheduled": (_AHEAD, (Status.PENDING,)),
    "dead": (_DEAD, (Status.DEAD,)),
}
"""In which range each situation lies, and the statuses that make it up; situations.py has the same for the lists."""


class _Group(NamedTuple):
    """How many records of a range are alike."""

    status: str
    code: str
    channel: str
    number: int
    oldest: datetime | None


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
        cursor.execute(FORBID_SORT)
        ranges = {sql: _groups(cursor, sql) for sql in (_DUE, _AHEAD, _DEAD)}
    return {name: _count(name, ranges[sql], statuses) for name, (sql, statuses) in _KINDS.items()}


def _groups(cursor: CursorWrapper, sql: str) -> list[_Group]:
    cursor.execute(sql, {"most": MOST})
    return [_Group(*row) for row in cursor.fetchall()]


def _count(name: str, groups: list[_Group], statuses: Collection[str]) -> Count:
    url = f"{reverse('admin:notifications_notificationrecord_changelist')}?{urlencode({'now': name})}"
    mine = [group for group in groups if group.status in statuses]
    codes: Counter[str] = Counter()
    for group in mine:
        codes[group.code] += group.number
    return Count(
        number=sum(group.number for group in mine),
        capped=sum(group.number for group in groups) >= MOST,
        url=url,
        oldest=min((group.oldest for group in mine if group.oldest), default=None),
        parts=[
            Part(code=escape_invisible(code), number=number, url=f"{url}&{urlencode({'code': code})}")
            for code, number in codes.most_common()
            if code
        ],
        channels=frozenset(escape_invisible(group.channel) for group in mine),
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
        cursor.execute(FORBID_SORT)
        number = found[:MOST].count()
    return Count(number=number, capped=number == MOST, url=url)
