"""The cards of the overview: a label, a value, a note, and whether action is needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from notifications.admin.current_states import CURRENT_STATES
from notifications.admin.display import age_html, format_age
from notifications.admin.overview.charts import format_duration, format_number
from notifications.admin.overview.counts import CodeCount, StateCount
from notifications.admin.overview.data import OverviewData, format_count
from notifications.admin.overview.server_status import PostgresqlStatus
from notifications.monitoring.conditions import ConditionName, Severity
from notifications.monitoring.indicators import RedisStatus

OK, CHECK, ACTION = "ok", "check", "action"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatCard:
    """One number or one state."""

    label: str | Promise
    value: str | SafeString
    level: str = ""
    """OK, CHECK or ACTION, which the page shows by a word and a colour; empty: neither good nor bad."""
    note: str | SafeString = ""
    url: str = ""
    codes: list[CodeCount] = field(default_factory=list)


def build_record_cards(data: OverviewData) -> list[StatCard]:
    """Return the cards that count records, rejected requests and paused channels."""
    counts = data.counts
    due = counts["due"]
    cards = [
        _count_card("due", due, level=_level(data, ConditionName.OVERDUE), note=_describe_oldest(due)),
        _count_card("sending", counts["sending"], note=_describe_lost(counts["vanished"])),
        _count_card("retry", counts["retry"], level=CHECK),
        _count_card("scheduled", counts["scheduled"]),
        _count_card("held", counts["held"]),
        _count_card("limited", counts["limited"]),
        _count_card("ordered", counts["ordered"]),
        _count_card("dead", counts["dead"], level=_level(data, ConditionName.DEAD)),
    ]
    if data.rejected:
        cards.append(_plain_card(_("requests rejected in the last 24 hours"), data.rejected))
    if data.paused:
        cards.append(_plain_card(_("paused channels"), data.paused))
    return cards


def build_dependency_cards(data: OverviewData) -> list[StatCard]:
    """Return the cards of everything that delivery depends on: workers, sweep, beat, PostgreSQL and Redis."""
    last = data.heartbeats
    return [
        StatCard(
            label=_("workers active in the last minute"),
            value=format_number(last.workers),
            level=_level(data, ConditionName.NO_WORKER) or OK,
        ),
        _heartbeat_card(_("last sweep finished"), last.sweep, _level(data, ConditionName.SWEEP_MISSING)),
        _heartbeat_card(_("last beat heartbeat"), last.beat, _level(data, ConditionName.BEAT_SILENT)),
        _postgresql_card(data.postgresql),
        _redis_card(data.redis, _level(data, ConditionName.REDIS_AWAY)),
    ]


def _level(data: OverviewData, name: ConditionName) -> str:
    """Return the level of a condition that holds; empty if it does not."""
    condition = data.conditions.get(name)
    if condition is None:
        return ""
    return ACTION if condition.severity == Severity.CRITICAL else CHECK


def _count_card(name: str, count: StateCount, *, level: str = "", note: str | SafeString = "") -> StatCard:
    return StatCard(
        label=CURRENT_STATES[name].label,
        value=format_count(count),
        level=level if count.number else "",
        note=note,
        url=count.url,
        codes=count.codes if level else [],
    )


def _plain_card(label: str, count: StateCount) -> StatCard:
    return StatCard(label=label, value=format_count(count), level=CHECK if count.number else "", url=count.url)


def _heartbeat_card(label: str, seen_at: datetime | None, level: str) -> StatCard:
    return StatCard(label=label, value=age_html(seen_at) if seen_at else _("never"), level=level or OK)


def _describe_oldest(due: StateCount) -> str | SafeString:
    if due.oldest is None:
        return ""
    return age_html(due.oldest, _("the oldest was due %(when)s") % {"when": format_age(due.oldest)})


def _describe_lost(count: StateCount) -> str:
    return _("%(count)s more: their worker was lost") % {"count": format_count(count)} if count.number else ""


def _postgresql_card(status: PostgresqlStatus) -> StatCard:
    used = _("%(used)d of %(allowed)d connections") % {"used": status.connections, "allowed": status.max_connections}
    warning = CHECK if status.nearly_full or status.slow else OK
    return StatCard(
        label=_("PostgreSQL answers in"),
        value=format_duration(status.milliseconds / 1000),
        level=ACTION if status.read_only else warning,
        note=_("read-only; %(used)s") % {"used": used} if status.read_only else used,
    )


def _redis_card(status: RedisStatus, level: str) -> StatCard:
    if not status.configured:
        return StatCard(label="Redis", value=_("not configured"))
    if status.milliseconds is None:
        return StatCard(label="Redis", value=_("does not answer"), level=level)
    return StatCard(label=_("Redis answers in"), value=format_duration(status.milliseconds / 1000), level=OK)
