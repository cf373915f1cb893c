"""Everything the overview reads before it decides what to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest
from django.utils.translation import gettext as _

from notifications.admin.overview.charts import format_number
from notifications.admin.overview.counts import StateCount, count_paused, count_records, count_rejected
from notifications.admin.overview.history import recent_attempts
from notifications.admin.overview.server_status import PostgresqlStatus, measure_postgresql
from notifications.monitoring.conditions import Condition, ConditionName
from notifications.monitoring.indicators import Indicators, RedisStatus
from notifications.telemetry.heartbeats import LastHeartbeats


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewData:
    """What the problems and the cards are made of; None where the user may not view it."""

    conditions: Mapping[ConditionName, Condition]
    """The conditions that hold and that the user may see."""
    counts: dict[str, StateCount]
    rejected: StateCount | None
    paused: StateCount | None
    attempts: dict[tuple[str, str], int]
    """Attempts of this hour and the last one by outcome and error code."""
    heartbeats: LastHeartbeats
    postgresql: PostgresqlStatus
    redis: RedisStatus

    @property
    def now(self) -> datetime:
        """PostgreSQL's time."""
        return self.heartbeats.now


def read_data(
    request: HttpRequest, indicators: Indicators, conditions: Mapping[ConditionName, Condition]
) -> OverviewData:
    """Read everything that the user of the request may see.

    Args:
        request: The request for the page.
        indicators: Those by which the conditions were judged.
        conditions: The conditions that hold and that the user may see.

    Raises:
        DatabaseError: PostgreSQL is away.
    """
    may = request.user.has_perm
    return OverviewData(
        conditions=conditions,
        counts=count_records(indicators),
        rejected=count_rejected(indicators) if may("notifications.view_rejectedrequest") else None,
        paused=count_paused(indicators) if may("notifications.view_usernotificationchannel") else None,
        attempts=recent_attempts(indicators.heartbeats.now),
        heartbeats=indicators.heartbeats,
        postgresql=measure_postgresql(),
        redis=indicators.redis,
    )


def format_count(count: StateCount) -> str:
    """Return a count as text: "1,234", or "at least 5,000"."""
    number = format_number(count.number)
    return _("at least %(count)s") % {"count": number} if count.capped else number
