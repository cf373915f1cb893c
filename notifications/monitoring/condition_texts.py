"""What people read about a condition: what is wrong, and what to do. One text for all presenters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from django.utils.translation import gettext as _, ngettext

from notifications.content.text import escape_invisible
from notifications.monitoring.conditions import Condition, ConditionName

Details = Mapping[str, Any]


class ConditionText(NamedTuple):
    """What is wrong, and what to do about it. Each is one or two sentences in the active language."""

    title: str
    action: str


def describe_condition(condition: Condition) -> ConditionText:
    """Return the text of a condition in the active language. It holds no secret and no personal data."""
    return _DESCRIBE[condition.name](condition.details)


def format_age(seconds: float | None) -> str:
    """Return a duration in the unit that fits, such as "90 s", "12 min" or "3 h"; None: "never"."""
    if seconds is None:
        return _("never")
    if seconds < 120:
        return _("%(number)s s") % {"number": f"{seconds:.0f}"}
    if seconds < 7200:
        return _("%(number)s min") % {"number": f"{seconds / 60:.0f}"}
    if seconds < 2 * 86_400:
        return _("%(number)s h") % {"number": f"{seconds / 3600:.0f}"}
    return _("%(number)s d") % {"number": f"{seconds / 86_400:.0f}"}


def _postgresql_away(details: Details) -> ConditionText:
    title = _("PostgreSQL does not answer (%(error)s).") % details
    return ConditionText(title, _("Start PostgreSQL, and check DATABASES."))


def _migrations_pending(details: Details) -> ConditionText:
    return ConditionText(_("Migrations are not applied: %(names)s.") % details, _("Run manage.py migrate."))


def _redis_away(details: Details) -> ConditionText:
    if details["is_broker"]:
        return ConditionText(
            _("Redis does not answer: Celery workers receive no tasks. No notification is lost."),
            _("Start Redis. Until then only the command deliver_due --forever delivers."),
        )
    return ConditionText(
        _("Redis does not answer: delivery goes on with the sweeps, without locks and nudges."),
        _('Start Redis, and check NOTIFICATIONS["REDIS_URL"].'),
    )


def _sweep_missing(details: Details) -> ConditionText:
    if details["seconds"] is None:
        return ConditionText(_("No sweep has ever finished."), _("Start beat and a worker."))
    ages = {"sweep": format_age(details["seconds"]), "beat": format_age(details["beat_seconds"])}
    if not details["workers"]:
        return ConditionText(
            _("Nothing is sent: no worker is running. The last sweep finished %(sweep)s ago.") % ages,
            _("Start the workers. Until then the command deliver_due --forever delivers too."),
        )
    if details["beat_silent"]:
        return ConditionText(
            _("Retries and scheduled notifications wait: beat is silent. The last sweep finished %(sweep)s ago.")
            % ages,
            _("Start beat. New requests are still sent at once."),
        )
    return ConditionText(
        _("Retries and scheduled notifications wait: the last sweep finished %(sweep)s ago.") % ages,
        _("Beat and workers run, but no sweep finishes. Read the logs of the workers."),
    )


def _overdue(details: Details) -> ConditionText:
    title = _("A notification has been due for %(age)s; the limit is %(limit)s.") % {
        "age": format_age(details["seconds"]),
        "limit": format_age(details["limit"]),
    }
    if details["workers"]:
        return ConditionText(title, _("Start more workers. The running ones are too few, or wait for slow endpoints."))
    return ConditionText(title, _("Start a worker. No worker is running."))


def _no_worker(details: Details) -> ConditionText:
    return ConditionText(
        _("No worker is running: no heartbeat for %(limit)d s.") % details,
        _("Start the workers. Until then the command deliver_due --forever delivers too."),
    )


def _beat_silent(details: Details) -> ConditionText:
    if details["seconds"] is None:
        title = _("Beat is silent: there never was a heartbeat.")
    else:
        title = _("Beat is silent: the last heartbeat was %(age)s ago.") % {"age": format_age(details["seconds"])}
    return ConditionText(title, _("Start beat. Replays, due jobs and alerts wait for it."))


def _dead(details: Details) -> ConditionText:
    title = ngettext(
        "%(count)d notification became dead in the last 24 hours (%(codes)s).",
        "%(count)d notifications became dead in the last 24 hours (%(codes)s).",
        details["count"],
    )
    codes = list(dict.fromkeys(escape_invisible(group.error_code) for group in details["groups"]))
    shown = ", ".join(codes[:3]) + (", ..." if len(codes) > 3 else "")
    return ConditionText(
        title % {"count": details["count"], "codes": shown},
        _("Fix the cause, then select them in the list of the admin and replay them."),
    )


def _channels_paused(details: Details) -> ConditionText:
    title = ngettext("%(count)d channel is paused.", "%(count)d channels are paused.", details["count"])
    return ConditionText(title % details, _("The list of channels in the admin shows since when and why."))


def _requests_rejected(details: Details) -> ConditionText:
    title = ngettext(
        "%(count)d request was rejected in the last 24 hours: the payload was invalid.",
        "%(count)d requests were rejected in the last 24 hours: the payload was invalid.",
        details["count"],
    )
    return ConditionText(
        title % details, _("Each rejected request in the admin shows which field and why. Ask the sender to fix it.")
    )


_DESCRIBE: dict[ConditionName, Callable[[Details], ConditionText]] = {
    ConditionName.POSTGRESQL_AWAY: _postgresql_away,
    ConditionName.MIGRATIONS_PENDING: _migrations_pending,
    ConditionName.REDIS_AWAY: _redis_away,
    ConditionName.SWEEP_MISSING: _sweep_missing,
    ConditionName.OVERDUE: _overdue,
    ConditionName.NO_WORKER: _no_worker,
    ConditionName.BEAT_SILENT: _beat_silent,
    ConditionName.DEAD: _dead,
    ConditionName.CHANNELS_PAUSED: _channels_paused,
    ConditionName.REQUESTS_REJECTED: _requests_rejected,
}
