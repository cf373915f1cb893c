"""What needs a person, in plain words: what is wrong, why, and what to press. A table of rules, gravest first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext as _, ngettext

from notifications.admin.display import format_age
from notifications.admin.overview.charts import number
from notifications.admin.overview.counts import Count
from notifications.admin.overview.data import Facts, Need, shown
from notifications.conf import service_options
from notifications.content.error_messages import ERROR_MESSAGES
from notifications.content.text import escape_invisible
from notifications.states import Outcome

LEAST_OVERDUE = timedelta(minutes=2)
"""What is due for less goes out soon."""
SLOW = 250.0
"""Milliseconds for the simplest question to PostgreSQL that show it in trouble."""
FAILING, FEWEST = 0.2, 20
"""Share of failed attempts that is said, and attempts from which a share means something."""


def needs(facts: Facts) -> list[Need]:
    """Return what needs a person."""
    return [need for rule in _RULES if (need := rule(facts))]


def _patience() -> timedelta:
    return timedelta(seconds=service_options().sweep_limit)


def _silent(facts: Facts, heard: datetime | None) -> bool:
    return heard is None or facts.now - heard > _patience()


def _since(heard: datetime | None) -> str:
    return _("last heard of %(when)s") % {"when": format_age(heard)} if heard else _("never heard of")


def _no_worker(facts: Facts) -> Need | None:
    if facts.seen.workers or not _silent(facts, facts.seen.sweep):
        return None
    return Need(
        kind="dead",
        what=_("Nothing is sent: no worker is running; the last sweep ended: %(when)s.")
        % {"when": format_age(facts.seen.sweep) if facts.seen.sweep else _("never")},
        do=_("Start the workers. Until they run, the command deliver_due --forever delivers too."),
    )


def _no_beat(facts: Facts) -> Need | None:
    if not facts.seen.workers or not _silent(facts, facts.seen.beat):
        return None
    return Need(
        kind="dead",
        what=_("Retries and scheduled messages wait: beat is silent, %(since)s.") % {"since": _since(facts.seen.beat)},
        do=_("Start beat. New requests still go out at once."),
    )


def _postgres(facts: Facts) -> Need | None:
    state = facts.postgres
    if state.read_only:
        return Need(
            kind="dead", what=_("PostgreSQL takes no writes."), do=_("Let it, or another one, become the primary.")
        )
    if state.crowded:
        what = _("PostgreSQL soon refuses connections: %(used)d of %(allowed)d are in use.")
        facts_ = {"used": state.connections, "allowed": state.allowed}
        return Need(kind="failed", what=what % facts_, do=_("Find out who holds them, or put PgBouncer in between."))
    if state.milliseconds > SLOW:
        what = _("PostgreSQL is slow: it took %(count)d ms to answer the simplest question.")
        return Need(kind="failed", what=what % {"count": state.milliseconds}, do=_("Look at its load and its locks."))
    return None


def _redis(facts: Facts) -> Need | None:
    if not facts.redis.away:
        return None
    return Need(
        kind="dead",
        what=_("Redis does not answer: nothing is lost, but workers that rest on it get no work."),
        do=_("Bring it back. Until then the command deliver_due --forever delivers."),
    )


def _unserved(facts: Facts) -> Need | None:
    due = facts.counts["due"]
    if not (unserved := due.channels - service_options().providers.keys()):
        return None
    return Need(
        kind="dead",
        what=_("Some are due on a channel that has no provider: %(names)s.") % {"names": ", ".join(sorted(unserved))},
        do=_("Add the channel to PROVIDERS, or call them off."),
        url=due.url,
        button=_("Show what is due"),
    )


def is_overdue(facts: Facts) -> bool:
    """Tell whether something is due for longer than it should be."""
    oldest = facts.counts["due"].oldest
    limit = max(2 * timedelta(seconds=service_options().sweep_interval), LEAST_OVERDUE)
    return oldest is not None and facts.now - oldest >= limit


def _overdue(facts: Facts) -> Need | None:
    due = facts.counts["due"]
    if due.oldest is None or not is_overdue(facts):
        return None
    text = ngettext(
        "%(count)s is due and not sent; it was due %(when)s.",
        "%(count)s are due and not sent; the oldest was due %(when)s.",
        due.number,
    )
    why = _("The workers that run are too few, or busy with slow endpoints: start more.")
    return Need(
        kind="dead",
        what=text % {"count": shown(due), "when": format_age(due.oldest)},
        do=why if facts.seen.workers else _("They go out once a worker runs."),
        url=due.url,
        button=_("Show what is due"),
    )


def _dead(facts: Facts) -> Need | None:
    dead = facts.counts["dead"]
    if not dead.number:
        return None
    text = ngettext(
        "%(count)s was not delivered in the last 24 hours and is not tried again.",
        "%(count)s were not delivered in the last 24 hours and are not tried again.",
        dead.number,
    )
    return Need(
        kind="dead",
        what=f"{text % {'count': shown(dead)}} {_mostly(dead)}".strip(),
        do=_("Remove the cause, then select them in the list and replay them."),
        url=dead.url,
        button=_("Show the dead"),
    )


def _mostly(count: Count) -> str:
    if not count.parts:
        return ""
    part = count.parts[0]
    said = _("%(count)s of them: %(code)s.") % {"count": number(part.number), "code": part.code}
    meaning: Promise | str = ERROR_MESSAGES.get(part.code, "")
    return f"{said} {meaning}".strip()


def _failing(facts: Facts) -> Need | None:
    bad = {pair: count for pair, count in facts.attempts.items() if pair[0] in _BAD}
    every, failed = sum(facts.attempts.values()), sum(bad.values())
    if every < FEWEST or failed < every * FAILING:
        return None
    _outcome, code = max(bad, key=lambda pair: bad[pair])
    retry = facts.counts["retry"]
    what = _("%(percent)d %% of the attempts of this hour and the last failed, most with %(code)s.")
    return Need(
        kind="failed",
        what=f"{what % {'percent': 100 * failed / every, 'code': escape_invisible(code)}} {ERROR_MESSAGES.get(code, '')}".strip(),
        do=_("They are tried again by themselves. If it lasts, look at one of them."),
        url=retry.url,
        button=_("Show what will be retried"),
    )


_BAD = (Outcome.TEMPORARY_FAIL, Outcome.PERMANENT_FAIL, Outcome.LOST)


def _rejected(facts: Facts) -> Need | None:
    if not facts.rejected or not facts.rejected.number:
        return None
    text = ngettext(
        "%(count)s request was refused in the last 24 hours: its sender broke a rule.",
        "%(count)s requests were refused in the last 24 hours: their senders broke a rule.",
        facts.rejected.number,
    )
    return Need(
        kind="failed",
        what=text % {"count": shown(facts.rejected)},
        do=_("Each says which field and why: let the sender be mended."),
        url=facts.rejected.url,
        button=_("Show the refused"),
    )


def _paused(facts: Facts) -> Need | None:
    if not facts.paused or not facts.paused.number:
        return None
    text = ngettext(
        "%(count)s channel is paused.",
        "%(count)s channels are paused.",
        facts.paused.number,
    )
    return Need(
        kind="failed",
        what=text % {"count": shown(facts.paused)},
        do=_("Each says since when and why."),
        url=facts.paused.url,
        button=_("Show the paused"),
    )


_RULES: tuple[Callable[[Facts], Need | None], ...] = (
    *(_no_worker, _postgres, _redis, _no_beat, _unserved, _overdue, _dead, _failing, _rejected, _paused),
)
