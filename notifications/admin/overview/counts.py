"""How many records are in each current state, with the list behind each number.

Each number is read from an index and is bounded, so that the page stays fast during an outage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from urllib.parse import urlencode

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.urls import reverse

from notifications.content.text import escape_invisible
from notifications.monitoring.indicators import MAX_COUNTED_ROWS, Indicators
from notifications.sql import FORBID_SORT, load_sql
from notifications.states import HELD_BY_ENDPOINT, SCHEDULED, HoldReason, Status

MAX_RANGE_ROWS = 5000
"""Rows that are read of the due and of the later ones. A larger number is shown as "at least 5,000"."""

_STATES: dict[str, tuple[str, Collection[Status], Collection[HoldReason]]] = {
    "due": ("count_due", SCHEDULED, tuple(HoldReason)),
    "vanished": ("count_due", (Status.SENDING,), tuple(HoldReason)),
    "sending": ("count_later", (Status.SENDING,), (HoldReason.NONE,)),
    "retry": ("count_later", (Status.FAILED,), (HoldReason.NONE,)),
    "scheduled": ("count_later", (Status.PENDING,), (HoldReason.NONE,)),
    "held": ("count_later", SCHEDULED, HELD_BY_ENDPOINT),
    "limited": ("count_later", SCHEDULED, (HoldReason.RATE_LIMITED,)),
    "ordered": ("count_later", SCHEDULED, (HoldReason.ORDER,)),
}
"""The statement that reads each current state, and the statuses and hold reasons that belong to it.

admin/current_states.py has the same states for the lists. "dead" is counted by the indicators.
"""


class _Group(NamedTuple):
    """How many records of a range are alike."""

    status: str
    error_code: str
    channel: str
    hold_reason: str
    number: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCount:
    """The records of one error code in a current state."""

    code: str
    """Without invisible characters: a provider may have returned it."""
    number: int
    url: str
    """The list of these records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCount:
    """The records, channels or requests in one current state."""

    number: int
    """At least so many where `capped`."""
    url: str
    """The list of what was counted."""
    capped: bool = False
    oldest: datetime | None = None
    """When the record that is due longest became due."""
    codes: list[CodeCount] = field(default_factory=list)
    """By error code, the most frequent first."""
    channels: frozenset[str] = frozenset()


def count_records(indicators: Indicators) -> dict[str, StateCount]:
    """Return the count of each current state of records, by its name."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(FORBID_SORT)
        ranges = {name: _read_groups(cursor, name) for name in ("count_due", "count_later")}
    counts = {
        name: _count_state(
            name,
            [group for group in ranges[statement] if group.status in statuses and group.hold_reason in reasons],
            ranges[statement],
        )
        for name, (statement, statuses, reasons) in _STATES.items()
    }
    return counts | {"dead": _count_dead(indicators)}


def count_rejected(indicators: Indicators) -> StateCount:
    """Return the count of requests that were rejected in the last 24 hours."""
    number = indicators.rejected.total
    url = reverse("admin:notifications_rejectedrequest_changelist")
    return StateCount(number=number, capped=number >= MAX_COUNTED_ROWS, url=f"{url}?now=day")


def count_paused(indicators: Indicators) -> StateCount:
    """Return the count of channels that are paused."""
    url = reverse("admin:notifications_usernotificationchannel_changelist")
    number = sum(count.total for count in indicators.paused.values())
    return StateCount(number=number, url=f"{url}?paused_at__isempty=0")


def _read_groups(cursor: CursorWrapper, statement: str) -> list[_Group]:
    cursor.execute(load_sql("notifications.admin.overview", statement), {"max_rows": MAX_RANGE_ROWS})
    return [_Group(*row) for row in cursor.fetchall()]


def _count_state(name: str, groups: list[_Group], range_groups: list[_Group]) -> StateCount:
    return StateCount(
        number=sum(group.number for group in groups),
        capped=sum(group.number for group in range_groups) >= MAX_RANGE_ROWS,
        url=_list_url(name),
        oldest=min((group.oldest for group in groups if group.oldest), default=None),
        codes=_count_codes(name, ((group.error_code, group.number) for group in groups)),
        channels=frozenset(escape_invisible(group.channel) for group in groups),
    )


def _count_dead(indicators: Indicators) -> StateCount:
    groups = [group for group in indicators.dead if group.in_period]
    number = sum(group.in_period for group in groups)
    return StateCount(
        number=number,
        capped=number >= MAX_COUNTED_ROWS,
        url=_list_url("dead"),
        codes=_count_codes("dead", ((group.error_code, group.in_period) for group in groups)),
        channels=frozenset(escape_invisible(group.channel) for group in groups),
    )


def _count_codes(name: str, numbers: Iterable[tuple[str, int]]) -> list[CodeCount]:
    by_code: Counter[str] = Counter()
    for code, number in numbers:
        by_code[code] += number
    return [
        CodeCount(code=escape_invisible(code), number=number, url=f"{_list_url(name)}&{urlencode({'code': code})}")
        for code, number in by_code.most_common()
        if code
    ]


def _list_url(name: str) -> str:
    return f"{reverse('admin:notifications_notificationrecord_changelist')}?{urlencode({'now': name})}"
