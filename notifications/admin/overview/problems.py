"""The problems on the overview: what is wrong, what to do, and which list to open. Critical ones come first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.utils.translation import gettext as _, ngettext

from notifications.admin.overview.data import OverviewData, format_count
from notifications.conf import service_options
from notifications.content.error_messages import ERROR_MESSAGES
from notifications.content.text import escape_invisible
from notifications.monitoring.condition_texts import describe_condition
from notifications.monitoring.conditions import Condition, ConditionName, Severity
from notifications.states import Outcome

MIN_FAILED_SHARE = 0.2
"""Share of failed attempts that is a problem."""
MIN_ATTEMPTS = 20
"""With fewer attempts the share means nothing."""
FAILED_OUTCOMES = (Outcome.TEMPORARY_FAIL, Outcome.PERMANENT_FAIL, Outcome.LOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that needs action."""

    severity: Severity
    title: str
    action: str
    url: str = ""
    """The list that shows it; empty: there is none."""
    button: str = ""
    """Text of the link to the list."""


def find_problems(data: OverviewData) -> list[Problem]:
    """Return the problems, critical ones first: the conditions of health, then what only this page checks."""
    problems = [
        describe_problem(condition, data)
        for condition in data.conditions.values()
        # The effects of a condition are not shown beside their cause.
        if condition.covered_by is None
    ]
    problems += [problem for check in _CHECKS if (problem := check(data))]
    return sorted(problems, key=lambda problem: problem.severity != Severity.CRITICAL)


def describe_problem(condition: Condition, data: OverviewData | None = None) -> Problem:
    """Return the problem of a condition.

    Args:
        condition: A condition that holds.
        data: Where the links are taken from. Without it the problem has no link.
    """
    title, action = describe_condition(condition)
    url = button = ""
    if data:
        match condition.name:
            case ConditionName.OVERDUE:
                url, button = data.counts["due"].url, _("Show due notifications")
                title = _join(title, _waiting(data))
            case ConditionName.DEAD:
                url, button = data.counts["dead"].url, _("Show dead notifications")
                codes = data.counts["dead"].codes
                title = _join(title, str(ERROR_MESSAGES.get(codes[0].code, "")) if len(codes) == 1 else "")
            case ConditionName.REQUESTS_REJECTED if data.rejected:
                url, button = data.rejected.url, _("Show rejected requests")
            case ConditionName.CHANNELS_PAUSED if data.paused:
                url, button = data.paused.url, _("Show paused channels")
    return Problem(severity=condition.severity, title=title, action=action, url=url, button=button)


def _waiting(data: OverviewData) -> str:
    due = data.counts["due"]
    text = ngettext("%(count)s notification is due.", "%(count)s notifications are due.", due.number)
    return text % {"count": format_count(due)} if due.number else ""


def _check_postgresql(data: OverviewData) -> Problem | None:
    status = data.postgresql
    if status.read_only:
        return Problem(severity=Severity.CRITICAL, title=_("PostgreSQL is read-only."), action=_("Promote a primary."))
    if status.nearly_full:
        text = _("PostgreSQL will soon refuse connections: %(used)d of %(allowed)d are in use.")
        return Problem(
            severity=Severity.WARNING,
            title=text % {"used": status.connections, "allowed": status.max_connections},
            action=_("Find out which programs use them, or put PgBouncer in front of PostgreSQL."),
        )
    if status.slow:
        text = _("PostgreSQL is slow: a simple query took %(count)d ms.")
        return Problem(
            severity=Severity.WARNING,
            title=text % {"count": status.milliseconds},
            action=_("Check its load and its locks."),
        )
    return None


def _check_providers(data: OverviewData) -> Problem | None:
    due = data.counts["due"]
    missing = due.channels - service_options().providers.keys()
    if not missing:
        return None
    text = _("Notifications are due on channels without a provider: %(names)s.")
    return Problem(
        severity=Severity.CRITICAL,
        title=text % {"names": ", ".join(sorted(missing))},
        action=_("Add the channel to PROVIDERS, or cancel the notifications."),
        url=due.url,
        button=_("Show due notifications"),
    )


def _check_failed_attempts(data: OverviewData) -> Problem | None:
    failed = {pair: count for pair, count in data.attempts.items() if pair[0] in FAILED_OUTCOMES}
    all_count, failed_count = sum(data.attempts.values()), sum(failed.values())
    if all_count < MIN_ATTEMPTS or failed_count < all_count * MIN_FAILED_SHARE:
        return None
    _outcome, code = max(failed, key=lambda pair: failed[pair])
    text = _("%(percent)d%% of the attempts of this hour and the last one failed, most of them with %(code)s.")
    title = text % {"percent": 100 * failed_count / all_count, "code": escape_invisible(code)}
    return Problem(
        severity=Severity.WARNING,
        title=_join(title, str(ERROR_MESSAGES.get(code, ""))),
        action=_("They are retried automatically. If this lasts, open one of them."),
        url=data.counts["retry"].url,
        button=_("Show notifications that wait to be retried"),
    )


_CHECKS: tuple[Callable[[OverviewData], Problem | None], ...] = (
    _check_postgresql,
    _check_providers,
    _check_failed_attempts,
)


def _join(first: str, second: str) -> str:
    """Join two sentences as the language does: Chinese puts no blank between them."""
    return _("%(first)s %(second)s") % {"first": first, "second": second} if second else first
