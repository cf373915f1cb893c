"""Figures: what is measured, what is to be reached, and how a table and a file are made of it. Pure."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One figure and its target."""

    name: str
    what: str
    reach: float
    higher_is_better: bool = True
    """Whether a higher value is better."""

    def reached(self, value: float) -> bool:
        """Return whether a median reaches the target."""
        return value >= self.reach if self.higher_is_better else value <= self.reach


KEYS = (
    Key(name="engine_vs_floor", what="engine / two bare loops of Session.post", reach=2.2),
    Key(
        name="engine_cpu_vs_floor",
        what="processor time of a delivery, engine with its servers / floor",
        reach=0.45,
        higher_is_better=False,
    ),
    Key(name="engine_vs_urllib3", what="engine / two bare loops of urllib3", reach=1.1),
    Key(name="engine_vs_naive_celery", what="engine / Celery task that only POSTs", reach=3),
    Key(name="engine_vs_durable_celery", what="engine / textbook durable Celery task", reach=20),
    Key(name="engine_vs_dramatiq", what="engine / dramatiq 2 x 8, stores nothing", reach=3),
    Key(name="engine_vs_post_office", what="engine / django-post_office, batches of 1000", reach=4),
    Key(name="engine_vs_graphile_worker", what="engine / graphile-worker 0.18, 2 x 32, no audit", reach=1.2),
    Key(name="engine_vs_pgqueuer", what="engine / pgqueuer 1.6, 2 x batches of 100", reach=1.2),
    Key(name="engine_vs_oban", what="engine / Oban for Python 0.7, 2 x 50", reach=2),
    Key(name="slow_vs_ideal", what="receiver of 200 ms, 2 x 32 slots / ideal", reach=0.97),
    Key(name="slow_wide_vs_ideal", what="receiver of 200 ms, 2 x 128 slots / ideal", reach=0.95),
    Key(name="slow_1024_vs_ideal", what="receiver of 2 s, 2 x 512 slots / ideal", reach=0.9),
    Key(name="isolation_p95", what="p95 beside a hanging endpoint / without", reach=1.5, higher_is_better=False),
    Key(
        name="fair_slow_neighbour_p95",
        what="p95 of 50 users beside many due to one that takes 2 s / alone",
        reach=3,
        higher_is_better=False,
    ),
    Key(
        name="fair_backlog_p95",
        what="p95 of 50 users behind many of one user / alone",
        reach=12,
        higher_is_better=False,
    ),
    Key(name="rate_limited_per_minute", what="of the 100 that a bot takes in a minute", reach=95),
    Key(
        name="rate_limited_updates",
        what="row updates per delivery to a bot at its limit",
        reach=6,
        higher_is_better=False,
    ),
    Key(name="request_cost", what="request_notification / bare ORM create", reach=1.5, higher_is_better=False),
    Key(name="bulk_vs_bulk_create", what="request_notifications / bulk_create, 10,000 rows", reach=0.6),
    Key(
        name="notify_cost", what="notify, one user, channel named / bare ORM create", reach=1.5, higher_is_better=False
    ),
    Key(name="notify_bulk_vs_bulk_create", what="notify to 10,000 users / bulk_create", reach=0.6),
    *(
        Key(
            name=f"first_send_{percent}_{way}",
            what=f"commit to first byte, {percent}, woken by {way} / naive task's",
            reach=reach,
            higher_is_better=False,
        )
        for percent, way, reach in (
            ("p99", "notify", 0.8),
            ("p50", "notify", 0.5),
            ("p99", "redis", 1.0),
            ("p50", "redis", 0.8),
        )
    ),
    Key(name="notify_commit_cost", what="commits of 32 callers, with NOTIFY / without", reach=0.95),
    Key(name="claim_flatness", what="pages of a claim, many / few finished rows", reach=1.3, higher_is_better=False),
    Key(
        name="held_snapshot_flatness",
        what="pages of a claim, an old snapshot open / none",
        reach=1.5,
        higher_is_better=False,
    ),
    Key(
        name="backlog_flatness",
        what="pages or time of a claim, many / few due, the worse",
        reach=1.3,
        higher_is_better=False,
    ),
    Key(name="sweep_rate", what="rows settled, memory provider / bare UPDATEs", reach=0.35),
    Key(
        name="signals_cost",
        what="microseconds a delivery, where nobody listens for signals",
        reach=5,
        higher_is_better=False,
    ),
    Key(name="ordered_vs_plain", what="rows settled, each with an order key of its own / without", reach=0.9),
    Key(name="rss_vs_naive", what="memory of 2 worker processes / naive task's 2", reach=1.0, higher_is_better=False),
    Key(name="rss_4_workers", what="memory of 4 worker processes / naive task's 2", reach=1.65, higher_is_better=False),
    Key(name="redis_down_request_ms", what="ms added, Redis down, first call, p99", reach=300, higher_is_better=False),
)
LATER = Key(name="redis_down_later_ms", what="ms added, Redis down, later calls, p99", reach=2, higher_is_better=False)
"""In the table and the details, not a key of its own in the file."""
NAMES = frozenset(key.name for key in KEYS)


@dataclass(slots=True)
class Results:
    """What the rounds brought: values by key, and the absolute figures below them."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    details: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    notes: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    """Why keys cannot be measured on this machine."""

    def add(self, name: str, value: float, **below: float) -> None:
        """Take one round's value. below: the absolute figures it is made of."""
        self.values[name].append(value)
        for label, figure in below.items():
            self.details[name][label].append(figure)

    def as_json(self, about: Mapping[str, Any]) -> str:
        """Return the file: each key with median, min and max; the rest under `details`."""
        spreads = {key.name: spread(self.values[key.name]) for key in KEYS if self.values.get(key.name)}
        details: dict[str, Any] = {"about": dict(about)}
        if self.absent:
            details["not shown"] = dict(self.absent)
        for name, figures in self.details.items():
            details[name] = {label: spread(values) for label, values in figures.items()}
        for name, note in self.notes.items():
            details.setdefault(name, {})["note"] = note
        if self.values.get(LATER.name):
            details[LATER.name] = spread(self.values[LATER.name])
        return json.dumps(spreads | {"details": details}, indent=2, ensure_ascii=False) + "\n"

    def table(self) -> str:
        """Return the table that people read."""
        heads = ("key", "what", "median", "min", "max", "reach", "reached", "made of (medians)")
        rows = [heads]
        for key in (*KEYS, LATER):
            if key.name in self.absent:
                aim = f"{'>=' if key.higher_is_better else '<='} {key.reach:g}"
                rows.append((key.name, key.what, "-", "-", "-", aim, "not shown", self.absent[key.name]))
            if not (values := self.values.get(key.name)):
                continue
            middle = median(values)
            below = [f"{label} {short(median(figures))}" for label, figures in self.details[key.name].items()]
            note = [self.notes[key.name]] if key.name in self.notes else []
            rows.append(
                (
                    *(key.name, key.what, short(middle), short(min(values)), short(max(values))),
                    *(
                        f"{'>=' if key.higher_is_better else '<='} {key.reach:g}",
                        "yes" if key.reached(middle) else "NO",
                    ),
                    "; ".join(below + note),
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads) - 1)]
        return "\n".join(
            "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]])
            for row in rows
        )


def spread(values: list[float]) -> dict[str, float]:
    """Return median, min and max, as the file has them."""
    return {"median": round(median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def short(value: float) -> str:
    """Return a number with as many digits as people want to read."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def percentile(values: list[float], percent: float) -> float:
    """Return the value below or at which `percent` of the values lie."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
