"""Positions of everything in a chart, in pixels. The template draws them as SVG, with the same numbers in a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.utils.functional import Promise
from django.utils.translation import gettext as _

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 74, 28, 20, 28
PLOT_HEIGHT = HEIGHT - TOP - BOTTOM
MAX_STEP_LABELS = 8
"""More labels under the steps would overlap."""
MAX_NUMBERED_BARS = 8
"""With more bars than this, no number is written above them."""
TICKS_SECONDS = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)
"""Where a logarithmic scale may start and end, and where its lines are."""

Text = str | Promise


@dataclass(frozen=True, slots=True)
class Series:
    """One value for each step. `kind` is the CSS class that gives the colour, and the pattern or dashes."""

    kind: str
    label: Text
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class AxisLabel:
    """A label on an axis."""

    position: str
    text: str


@dataclass(frozen=True, slots=True)
class BarSegment:
    """The part of a bar that shows one series."""

    kind: str
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One step: its stacked segments, and its tooltip."""

    x: str
    middle: str
    width: str
    tooltip: str
    top: str
    number: str
    segments: Sequence[BarSegment]


@dataclass(frozen=True, slots=True)
class Line:
    """One series as a line, with a gap where a value is missing."""

    kind: str
    paths: list[str]
    dots: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """The contents of a chart: series of values over steps, and the texts."""

    name: str
    title: Text
    description: str
    step_label: Text
    """What a step is, such as "hour"."""
    steps: Sequence[str]
    series: Sequence[Series]
    format_value: Callable[[float | None], str]

    @property
    def empty(self) -> bool:
        """Whether all values are zero or missing."""
        return not any(value for series in self.series for value in series.values)

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """The rows of the table: the name of each step, and its values as text."""
        return [
            (name, [self.format_value(series.values[i]) for series in self.series]) for i, name in enumerate(self.steps)
        ]

    @property
    def step_width(self) -> float:
        """Width of a step in pixels."""
        return (WIDTH - LEFT - RIGHT) / len(self.steps)

    def tooltip(self, index: int) -> str:
        """Return the tooltip of a step; empty where all values are zero or missing."""
        values = [
            f"{series.label} {self.format_value(series.values[index])}"
            for series in self.series
            if series.values[index]
        ]
        return self.steps[index] + ": " + _("; ").join(values) if values else ""

    def x_labels(self) -> list[AxisLabel]:
        """Return the labels under the steps, MAX_STEP_LABELS at most."""
        label_interval = math.ceil(len(self.steps) / MAX_STEP_LABELS)
        # Counted from the end, so that the last step always has a label.
        return [
            AxisLabel(_px(LEFT + (index + 0.5) * self.step_width), name)
            for index, name in enumerate(self.steps)
            if (len(self.steps) - 1 - index) % label_interval == 0
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot with all positions."""

    plot: Plot
    y_labels: list[AxisLabel]
    x_labels: list[AxisLabel]
    bars: list[Bar]
    lines: list[Line] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM
    plot_height: int = PLOT_HEIGHT


def build_bar_chart(plot: Plot) -> Chart:
    """Return a chart of bars in which the series are stacked."""
    sums = [
        sum(values) for values in zip(*([value or 0 for value in series.values] for series in plot.series), strict=True)
    ]
    ticks = _scale_ticks(max(sums))
    scale = PLOT_HEIGHT / ticks[-1]
    items = []
    for index, total in enumerate(sums):
        y, segments = float(HEIGHT - BOTTOM), []
        for series in plot.series:
            if value := series.values[index]:
                height = max(value * scale, 1.5)  # even the smallest value must be visible
                y -= height
                segments.append(BarSegment(series.kind, _px(y), _px(height)))
        number = plot.format_value(total) if len(sums) <= MAX_NUMBERED_BARS else ""
        items.append(_build_bar(plot, index, segments=segments, top=_px(y - 4), number=number))
    return Chart(
        plot=plot,
        y_labels=[AxisLabel(_px(HEIGHT - BOTTOM - tick * scale), plot.format_value(tick)) for tick in ticks],
        x_labels=plot.x_labels(),
        bars=items,
    )


def build_line_chart(plot: Plot) -> Chart:
    """Return a chart of lines with a logarithmic scale of seconds."""
    known = [value for series in plot.series for value in series.values if value] or [0.1, 1.0]
    low = max((tick for tick in TICKS_SECONDS[:-1] if tick <= min(known)), default=TICKS_SECONDS[0])
    high = min((tick for tick in TICKS_SECONDS if tick >= max(known) and tick > low), default=TICKS_SECONDS[-1])

    def y_position(value: float) -> str:
        part = math.log(min(max(value, low), high) / low) / math.log(high / low)
        return _px(HEIGHT - BOTTOM - PLOT_HEIGHT * part)

    items = []
    for series in plot.series:
        points = [
            None if value is None else (_px(LEFT + (index + 0.5) * plot.step_width), y_position(value))
            for index, value in enumerate(series.values)
        ]
        runs = [list(run) for known, run in itertools.groupby(points, key=bool) if known]
        paths = [" ".join(",".join(point) for point in run if point) for run in runs if len(run) > 1]
        items.append(Line(series.kind, paths, [point for point in points if point]))
    return Chart(
        plot=plot,
        y_labels=[
            AxisLabel(y_position(tick), plot.format_value(tick)) for tick in TICKS_SECONDS if low <= tick <= high
        ],
        x_labels=plot.x_labels(),
        bars=[_build_bar(plot, index) for index in range(len(plot.steps))],
        lines=items,
    )


def _build_bar(plot: Plot, index: int, *, segments: Sequence[BarSegment] = (), top: str = "", number: str = "") -> Bar:
    x = LEFT + index * plot.step_width
    return Bar(
        x=_px(x + plot.step_width * 0.1),
        middle=_px(x + plot.step_width / 2),
        width=_px(plot.step_width * 0.8),
        tooltip=plot.tooltip(index),
        top=top,
        number=number,
        segments=segments,
    )


def _scale_ticks(maximum: float) -> list[float]:
    """Return up to five round whole numbers, from 0 to at least `maximum`."""
    step = 1.0
    while step * 4 < maximum:
        step *= 2.5 if str(step).startswith("2") else 2
    return [step * index for index in range(math.ceil(max(maximum, 1) / step) + 1)]


def _px(value: float) -> str:
    # A string, because some languages format numbers with a decimal comma.
    return f"{value:.1f}"
