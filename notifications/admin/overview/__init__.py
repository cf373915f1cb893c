"""The overview on the first page of the app in the admin: problems, current numbers, dependencies and charts.

The package presents the conditions of `monitoring.conditions` and the counters of the tables. It judges delivery by
nothing else, and changes nothing. `templatetags` and the other modules of the admin may import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.http import HttpRequest
from django.utils import timezone

from notifications.admin.overview.chart_geometry import Chart
from notifications.admin.overview.charts import build_charts
from notifications.admin.overview.data import read_data
from notifications.admin.overview.history import last_day, last_month
from notifications.admin.overview.problems import Problem, describe_problem, find_problems
from notifications.admin.overview.stat_cards import StatCard, build_dependency_cards, build_record_cards
from notifications.monitoring.conditions import ConditionName, evaluate_conditions
from notifications.monitoring.indicators import Indicators

PERMISSIONS = {
    ConditionName.REQUESTS_REJECTED: "notifications.view_rejectedrequest",
    ConditionName.CHANNELS_PAUSED: "notifications.view_usernotificationchannel",
}
"""What a user needs, besides the permission to view notifications, to see these conditions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the page shows."""

    now: datetime
    problems: list[Problem]
    record_cards: list[StatCard] = field(default_factory=list)
    dependency_cards: list[StatCard] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)


def build_overview(request: HttpRequest) -> Overview | None:
    """Build the overview for the user of a request.

    Args:
        request: A request of the admin, with its user.

    Returns:
        What this user may see; None for a user who may not view notifications. While PostgreSQL refuses queries only
        that problem is shown.
    """
    may = request.user.has_perm
    if not may("notifications.view_notificationrecord"):
        return None
    indicators = Indicators()
    names = [name for name in ConditionName if name not in PERMISSIONS or may(PERMISSIONS[name])]
    conditions = {condition.name: condition for condition in evaluate_conditions(indicators, names)}
    if away := conditions.get(ConditionName.POSTGRESQL_AWAY):
        return Overview(now=timezone.now(), problems=[describe_problem(away)])
    data = read_data(request, indicators, conditions)
    charts_by_span = zip(build_charts(last_day(data.now)), build_charts(last_month(data.now)), strict=True)
    return Overview(
        now=data.now,
        problems=find_problems(data),
        record_cards=build_record_cards(data),
        dependency_cards=build_dependency_cards(data),
        charts=[chart for pair in charts_by_span for chart in pair],
    )
