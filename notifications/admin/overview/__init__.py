"""The first page of the app in the admin: what is wrong, why, and what to press."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.http import HttpRequest

from notifications.admin.overview.chart_geometry import Chart
from notifications.admin.overview.charts import draw
from notifications.admin.overview.counts import count_paused, count_records, count_rejected
from notifications.admin.overview.data import Facts, Need
from notifications.admin.overview.history import last_day, last_month, recent_attempts
from notifications.admin.overview.problems import needs
from notifications.admin.overview.server_status import ask_postgres, ask_redis
from notifications.admin.overview.stat_cards import Figure, figures, services
from notifications.telemetry.heartbeats import last_heartbeats


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the page shows."""

    now: datetime
    needs: list[Need]
    figures: list[Figure]
    services: list[Figure]
    charts: list[Chart]


def overview(request: HttpRequest) -> Overview | None:
    """Return what this user may see of it; None for who may not look at notifications."""
    user = request.user
    if not user.has_perm("notifications.view_notificationrecord"):
        return None
    heard = last_heartbeats()
    facts = Facts(
        counts=count_records(),
        rejected=count_rejected() if user.has_perm("notifications.view_rejectedrequest") else None,
        paused=count_paused() if user.has_perm("notifications.view_usernotificationchannel") else None,
        attempts=recent_attempts(heard.now),
        seen=heard,
        postgres=ask_postgres(),
        redis=ask_redis(),
    )
    by_span = zip(draw(last_day(heard.now)), draw(last_month(heard.now)), strict=True)
    return Overview(
        now=heard.now,
        needs=needs(facts),
        figures=figures(facts),
        services=services(facts),
        charts=[chart for pair in by_span for chart in pair],
    )
