"""The numbers of the overview: a label, a value, a note, and whether it is as it should be."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from django.utils.functional import Promise
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from notifications.admin.current_states import CURRENT_STATES
from notifications.admin.display import age_html, format_age
from notifications.admin.overview.charts import duration, number
from notifications.admin.overview.counts import Count, Part
from notifications.admin.overview.data import Facts, shown
from notifications.admin.overview.problems import SLOW, is_overdue
from notifications.admin.overview.server_status import Postgres, Redis
from notifications.conf import service_options

GOOD, LOOK, BAD = "good", "look", "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number or one state. `verdict` is said by a word and a colour."""

    label: str | Promise
    value: str | SafeString
    verdict: str = ""
    note: str | SafeString = ""
    url: str = ""
    parts: list[Part] = field(default_factory=list)


def figures(facts: Facts) -> list[Figure]:
    """Return how many there are of what."""
    counts = facts.counts
    found = [
        _count("due", counts["due"], verdict=BAD if is_overdue(facts) else "", note=_waited(counts["due"])),
        _count("sending", counts["sending"], note=_vanished(counts["vanished"])),
        _count("retry", counts["retry"], verdict=LOOK),
        _count("scheduled", counts["scheduled"]),
        _count("dead", counts["dead"], verdict=BAD),
    ]
    if facts.rejected:
        found.append(_plain(_("requests refused in the last 24 hours"), facts.rejected))
    if facts.paused:
        found.append(_plain(_("paused channels"), facts.paused))
    return found


def services(facts: Facts) -> list[Figure]:
    """Return what runs, and whether what we rest on answers."""
    seen, late = facts.seen, service_options().sweep_limit

    def pulse(label: str, heard: datetime | None) -> Figure:
        fresh = heard is not None and (facts.now - heard).total_seconds() <= late
        return Figure(label=label, value=age_html(heard) if heard else _("never"), verdict=GOOD if fresh else BAD)

    return [
        Figure(
            label=_("workers heard of in the last minute"),
            value=number(seen.workers),
            verdict=GOOD if seen.workers else BAD,
        ),
        pulse(_("last sweep"), seen.sweep),
        pulse(_("beat last heard of"), seen.beat),
        _postgres(facts.postgres),
        _redis(facts.redis),
    ]


def _count(name: str, count: Count, *, verdict: str = "", note: str | SafeString = "") -> Figure:
    return Figure(
        label=CURRENT_STATES[name].label,
        value=shown(count),
        verdict=verdict if count.number else "",
        note=note,
        url=count.url,
        parts=count.parts if verdict else [],
    )


def _plain(label: str, count: Count) -> Figure:
    return Figure(label=label, value=shown(count), verdict=LOOK if count.number else "", url=count.url)


def _waited(due: Count) -> str | SafeString:
    return (
        age_html(due.oldest, _("the oldest was due %(when)s") % {"when": format_age(due.oldest)}) if due.oldest else ""
    )


def _vanished(count: Count) -> str:
    return _("%(count)s more: their worker vanished") % {"count": shown(count)} if count.number else ""


def _postgres(state: Postgres) -> Figure:
    used = _("%(used)d of %(allowed)d connections") % {"used": state.connections, "allowed": state.allowed}
    trouble = state.read_only or state.crowded or state.milliseconds > SLOW
    return Figure(
        label=_("PostgreSQL answers in"),
        value=duration(state.milliseconds / 1000),
        verdict=BAD if trouble else GOOD,
        note=_("read-only; %(used)s") % {"used": used} if state.read_only else used,
    )


def _redis(state: Redis) -> Figure:
    if not state.configured:
        return Figure(label="Redis", value=_("not configured"))
    if state.milliseconds is None:
        return Figure(label="Redis", value=_("does not answer"), verdict=BAD)
    return Figure(label=_("Redis answers in"), value=duration(state.milliseconds / 1000), verdict=GOOD)
