"""Where the marks of a chart go. Pure geometry: the template draws it as SVG, the same numbers stand in its table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.utils.functional import Promise

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 74, 28, 20, 28
ROOM = HEIGHT - TOP - BOTTOM
LABELS = 8
"""Steps that carry their label at most, so that labels do not run into each other."""
NUMBERED = 8
"""Bars that carry their number at most."""
TICKS = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)
"""Seconds a logarithmic scale may begin, end and be ruled at."""

Text = str | Promise


@dataclass(frozen=True, slots=True)
class Series:
    """One thing that is drawn over the steps. `kind` gives its colour and its pattern or dashes."""

    kind: str
    label: Text
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """A label at a place."""

    at: str
    text: str


@dataclass(frozen=True, slots=True)
class Box:
    """One part of a bar."""

    kind: str
    y: str
    height: str


@dataclass(frozen=True, slots=True)
class Bar:
    """All of one step: what is piled up in it, and what pointing at it says."""

    x: str
    middle: str
    width: str
    says: str
    top: str
    number: str
    boxes: Sequence[Box]


@dataclass(frozen=True, slots=True)
class Line:
    """One series, broken where nothing is known."""

    kind: str
    paths: list[str]
    dots: list[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What is to be drawn: series of values over steps, and the words for them."""

    name: str
    title: Text
    description: str
    steps_are: Text
    steps: Sequence[str]
    series: Sequence[Series]
    words: Callable[[float | None], str]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(value for one in self.series for value in one.values)

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """The table: each step with its values in words."""
        return [(name, [self.words(one.values[i]) for one in self.series]) for i, name in enumerate(self.steps)]

    @property
    def step(self) -> float:
        """Width of a step."""
        return (WIDTH - LEFT - RIGHT) / len(self.steps)

    def says(self, index: int) -> str:
        """Return what pointing at a step says; nothing where there is nothing."""
        values = [f"{one.label} {self.words(one.values[index])}" for one in self.series if one.values[index]]
        return f"{self.steps[index]}: {'; '.join(values)}" if values else ""

    def x_marks(self) -> list[Mark]:
        """Return the labels of the steps, as many as there is room for."""
        every = math.ceil(len(self.steps) / LABELS)
        # Counted from the end: now is what one looks at.
        return [
            Mark(_px(LEFT + (index + 0.5) * self.step), name)
            for index, name in enumerate(self.steps)
            if (len(self.steps) - 1 - index) % every == 0
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot with the places of its marks."""

    plot: Plot
    y_marks: list[Mark]
    x_marks: list[Mark]
    bars: list[Bar]
    lines: list[Line] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM
    room: int = ROOM


def bars(plot: Plot) -> Chart:
    """Return a chart of bars, the series piled up in each."""
    sums = [sum(values) for values in zip(*([value or 0 for value in one.values] for one in plot.series), strict=True)]
    ticks = _round_numbers(max(sums))
    scale = ROOM / ticks[-1]
    drawn = []
    for index, total in enumerate(sums):
        y, boxes = float(HEIGHT - BOTTOM), []
        for one in plot.series:
            if value := one.values[index]:
                height = max(value * scale, 1.5)  # what there is shows, however little
                y -= height
                boxes.append(Box(one.kind, _px(y), _px(height)))
        number = plot.words(total) if len(sums) <= NUMBERED else ""
        drawn.append(_bar(plot, index, boxes=boxes, top=_px(y - 4), number=number))
    return Chart(
        plot=plot,
        y_marks=[Mark(_px(HEIGHT - BOTTOM - tick * scale), plot.words(tick)) for tick in ticks],
        x_marks=plot.x_marks(),
        bars=drawn,
    )


def lines(plot: Plot) -> Chart:
    """Return a chart of lines over a logarithmic scale of seconds."""
    known = [value for one in plot.series for value in one.values if value] or [0.1, 1.0]
    low = max((tick for tick in TICKS[:-1] if tick <= min(known)), default=TICKS[0])
    high = min((tick for tick in TICKS if tick >= max(known) and tick > low), default=TICKS[-1])

    def place(value: float) -> str:
        part = math.log(min(max(value, low), high) / low) / math.log(high / low)
        return _px(HEIGHT - BOTTOM - ROOM * part)

    drawn = []
    for one in plot.series:
        points = [
            None if value is None else (_px(LEFT + (index + 0.5) * plot.step), place(value))
            for index, value in enumerate(one.values)
        ]
        runs = [list(run) for known, run in itertools.groupby(points, key=bool) if known]
        paths = [" ".join(",".join(point) for point in run if point) for run in runs if len(run) > 1]
        drawn.append(Line(one.kind, paths, [point for point in points if point]))
    return Chart(
        plot=plot,
        y_marks=[Mark(place(tick), plot.words(tick)) for tick in TICKS if low <= tick <= high],
        x_marks=plot.x_marks(),
        bars=[_bar(plot, index) for index in range(len(plot.steps))],
        lines=drawn,
    )


def _bar(plot: Plot, index: int, *, boxes: Sequence[Box] = (), top: str = "", number: str = "") -> Bar:
    x = LEFT + index * plot.step
    return Bar(
        x=_px(x + plot.step * 0.1),
        middle=_px(x + plot.step / 2),
        width=_px(plot.step * 0.8),
        says=plot.says(index),
        top=top,
        number=number,
        boxes=boxes,
    )


def _round_numbers(most: float) -> list[float]:
    """Return up to five round whole numbers from 0 to at least `most`."""
    step = 1.0
    while step * 4 < most:
        step *= 2.5 if str(step).startswith("2") else 2
    return [step * index for index in range(math.ceil(max(most, 1) / step) + 1)]


def _px(value: float) -> str:
    # A string: no language writes it with a comma.
    return f"{value:.1f}"
