"""The charts of the overview: which numbers each one shows, and the texts around them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.display import EMPTY_VALUE
from notifications.admin.overview.chart_geometry import Chart, Plot, Series, build_bar_chart, build_line_chart
from notifications.admin.overview.history import PERCENTILES, CounterRow, Span, percentile
from notifications.states import FINAL, Measure, Outcome, Status

MAX_ATTEMPT_BARS = 6
"""Bars of the chart of attempts per delivery. The last one stands for this number of attempts and more."""

SPAN_LABELS: dict[str, Promise] = {"day": _("last 24 hours"), "month": _("last 30 days")}
STEP_LABELS: dict[str, Promise] = {"day": _("hour"), "month": _("day")}


def build_charts(span: Span) -> list[Chart]:
    """Return the three charts of a time span: outcomes, delivery times, attempts per delivery."""
    rows = span.read_counters()
    return [_build_outcome_chart(span, rows), _build_time_chart(span, rows), _build_attempt_chart(span, rows)]


def _build_outcome_chart(span: Span, rows: list[CounterRow]) -> Chart:
    counts: Counter[tuple[datetime, str]] = Counter()
    for row in rows:
        if row.measure == Measure.ATTEMPTS:
            counts[row.step, row.outcome] += row.number
    series = [
        Series(outcome.value, outcome.label, [counts[step, outcome.value] for step in span.steps])
        for outcome in Outcome
    ]
    parts = [f"{item.label} {format_number(_total(item))}" for item in series if _total(item)]
    return build_bar_chart(
        Plot(
            name=f"outcomes-{span.name}",
            title=_title(span, _("Delivery attempts by outcome")),
            description=gettext("; ").join(parts) or gettext("Nothing was sent."),
            step_label=STEP_LABELS[span.name],
            steps=_step_names(span),
            series=series,
            format_value=format_number,
        )
    )


def _build_time_chart(span: Span, rows: list[CounterRow]) -> Chart:
    """Build the chart of delivery times. Replays are left out: their time since the request means nothing."""
    histograms: dict[datetime, Counter[int]] = {step: Counter() for step in span.steps}
    for row in rows:
        if row.measure == Measure.DELIVERIES and row.outcome == Status.SENT and row.step in histograms:
            histograms[row.step][row.bucket] += row.number
    whole = sum(histograms.values(), Counter[int]())
    series = [
        Series(f"p{percent}", f"p{percent}", [percentile(histogram, percent) for histogram in histograms.values()])
        for percent in PERCENTILES
    ]
    parts = [f"p{percent} {format_duration(percentile(whole, percent))}" for percent in PERCENTILES if whole]
    return build_line_chart(
        Plot(
            name=f"times-{span.name}",
            title=_title(span, _("Time from request to delivery")),
            description=gettext("; ").join(parts) or gettext("Nothing was delivered."),
            step_label=STEP_LABELS[span.name],
            steps=_step_names(span),
            series=series,
            format_value=format_duration,
        )
    )


def _build_attempt_chart(span: Span, rows: list[CounterRow]) -> Chart:
    counts: Counter[tuple[str, int]] = Counter()
    for row in rows:
        if row.measure != Measure.ATTEMPTS:
            counts[row.outcome, min(max(row.attempts, 1), MAX_ATTEMPT_BARS)] += row.number
    series = [
        Series(
            status.value, status.label, [counts[status.value, attempts] for attempts in range(1, MAX_ATTEMPT_BARS + 1)]
        )
        for status in FINAL
    ]
    first_attempts, total = series[0].values[0] or 0, _total(series[0])
    text = gettext("%(percent)s%% of the sent notifications took one attempt.")
    return build_bar_chart(
        Plot(
            name=f"attempts-{span.name}",
            title=_title(span, _("Attempts per delivery")),
            description=text % {"percent": f"{100 * first_attempts / total:.1f}"}
            if total
            else gettext("Nothing was sent."),
            step_label=_("attempts"),
            steps=[str(attempts) for attempts in range(1, MAX_ATTEMPT_BARS)] + [f"{MAX_ATTEMPT_BARS}+"],
            series=series,
            format_value=format_number,
        )
    )


def format_number(value: float | None) -> str:
    """Return a count with thousands separators; a dash for None."""
    return EMPTY_VALUE if value is None else f"{value:,.0f}"


def format_duration(seconds: float | None) -> str:
    """Return seconds in the unit that fits, to two digits; a dash for None."""
    if seconds is None:
        return EMPTY_VALUE
    if seconds < 1:
        return gettext("%(number)s ms") % {
            "number": f"{seconds * 1000:.2g}" if seconds < 0.1 else f"{seconds * 1000:.0f}"
        }
    for limit, unit, text in (
        (60, 1, _("%(number)s s")),
        (3600, 60, _("%(number)s min")),
        (86_400, 3600, _("%(number)s h")),
    ):
        if seconds < limit:
            return str(text) % {"number": f"{seconds / unit:.2g}"}
    return gettext("%(number)s d") % {"number": f"{seconds / 86_400:.2g}"}


def _title(span: Span, subject: Promise) -> str:
    return gettext("%(subject)s, %(span)s") % {"subject": subject, "span": SPAN_LABELS[span.name]}


def _step_names(span: Span) -> list[str]:
    form = "H:i" if span.unit == "hour" else "m-d"
    return [date_format(timezone.localtime(step), form) for step in span.steps]


def _total(series: Series) -> float:
    return sum(value or 0 for value in series.values)
