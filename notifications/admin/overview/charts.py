"""The charts of the overview: which numbers each draws, and the words around them."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.display import EMPTY_VALUE
from notifications.admin.overview.chart_geometry import Chart, Plot, Series, bars, lines
from notifications.admin.overview.history import QUANTILES, Span, Tallied, percentile
from notifications.states import FINAL, Measure, Outcome, Status

SHOWN_ATTEMPTS = 6
"""Attempts per delivery that have a bar of their own; the last stands for more as well."""

OVER: dict[str, Promise] = {"day": _("last 24 hours"), "month": _("last 30 days")}
STEP: dict[str, Promise] = {"day": _("hour"), "month": _("day")}


def draw(span: Span) -> list[Chart]:
    """Return the three charts of a span."""
    tallied = span.read()
    return [_outcomes(span, tallied), _times(span, tallied), _attempts(span, tallied)]


def _outcomes(span: Span, tallied: list[Tallied]) -> Chart:
    """Draw how attempts ended over time."""
    counts: Counter[tuple[datetime, str]] = Counter()
    for row in tallied:
        if row.measure == Measure.ATTEMPTS:
            counts[row.step, row.outcome] += row.number
    series = [
        Series(outcome.value, outcome.label, [counts[step, outcome.value] for step in span.steps])
        for outcome in Outcome
    ]
    parts = [f"{one.label} {number(_total(one))}" for one in series if _total(one)]
    return bars(
        Plot(
            name=f"outcomes-{span.name}",
            title=_over(span, _("Delivery attempts by outcome")),
            description="; ".join(parts) or gettext("Nothing was sent."),
            steps_are=STEP[span.name],
            steps=_names(span),
            series=series,
            words=number,
        )
    )


def _times(span: Span, tallied: list[Tallied]) -> Chart:
    """Draw the percentiles of the time from request to delivery; that of a replay means nothing."""
    histograms: dict[datetime, Counter[int]] = {step: Counter() for step in span.steps}
    for row in tallied:
        if row.measure == Measure.DELIVERIES and row.outcome == Status.SENT and row.step in histograms:
            histograms[row.step][row.bucket] += row.number
    whole = sum(histograms.values(), Counter[int]())
    series = [
        Series(f"p{percent}", f"p{percent}", [percentile(histogram, percent) for histogram in histograms.values()])
        for percent in QUANTILES
    ]
    parts = [f"p{percent} {duration(percentile(whole, percent))}" for percent in QUANTILES if whole]
    return lines(
        Plot(
            name=f"times-{span.name}",
            title=_over(span, _("Time from request to delivery")),
            description="; ".join(parts) or gettext("Nothing was delivered."),
            steps_are=STEP[span.name],
            steps=_names(span),
            series=series,
            words=duration,
        )
    )


def _attempts(span: Span, tallied: list[Tallied]) -> Chart:
    """Draw how many attempts records took until they were final, replays too."""
    piles: Counter[tuple[str, int]] = Counter()
    for row in tallied:
        if row.measure != Measure.ATTEMPTS:
            piles[row.outcome, min(max(row.attempts, 1), SHOWN_ATTEMPTS)] += row.number
    series = [
        Series(status.value, status.label, [piles[status.value, attempts] for attempts in range(1, SHOWN_ATTEMPTS + 1)])
        for status in FINAL
    ]
    first, every = series[0].values[0] or 0, _total(series[0])
    described = gettext("%(percent)s %% of what was sent took one attempt.")
    return bars(
        Plot(
            name=f"attempts-{span.name}",
            title=_over(span, _("Attempts per delivery")),
            description=described % {"percent": f"{100 * first / every:.1f}"}
            if every
            else gettext("Nothing was sent."),
            steps_are=_("attempts"),
            steps=[str(attempts) for attempts in range(1, SHOWN_ATTEMPTS)] + [f"{SHOWN_ATTEMPTS}+"],
            series=series,
            words=number,
        )
    )


def number(value: float | None) -> str:
    """Return a count as people read it."""
    return EMPTY_VALUE if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float | None) -> str:
    """Return seconds in the unit that fits, to two digits."""
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


def _over(span: Span, what: Promise) -> str:
    return f"{what}, {OVER[span.name]}"


def _names(span: Span) -> list[str]:
    form = "H:i" if span.unit == "hour" else "m-d"
    return [date_format(timezone.localtime(step), form) for step in span.steps]


def _total(series: Series) -> float:
    return sum(value or 0 for value in series.values)
