"""The text of an alert, in the language of ALERT_LANGUAGE."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone, translation
from django.utils.translation import gettext, ngettext

from notifications.conf import service_options
from notifications.monitoring.condition_texts import describe_condition
from notifications.monitoring.conditions import Condition, ConditionName, Severity
from notifications.states import AlertKind


def compose_alert(
    kind: str, count: int, details: dict[str, Any], since: datetime, resolved_at: datetime | None
) -> tuple[str, str]:
    """Return subject and text of an alert.

    Args:
        kind: An AlertKind.
        count: How many notifications, channels or requests.
        details: The stored details of the alert. An earlier version may have stored fewer of them.
        since: When the alert became active.
        resolved_at: When it was over; None while it is active.

    Returns:
        Subject (one line) and text (it begins with the subject).
    """
    with translation.override(service_options().alert_language or settings.LANGUAGE_CODE):
        subject, action = _describe(AlertKind(kind), count, details)
        if resolved_at is None:
            started = gettext("Since %(time)s.") % {"time": _format_time(since)}
            return subject, f"{subject}\n{started}\n{action}"
        subject = gettext("Resolved: %(subject)s") % {"subject": subject}
        return subject, f"{subject}\n{_format_time(since)} - {_format_time(resolved_at)}"


def _describe(kind: AlertKind, count: int, details: dict[str, Any]) -> tuple[str, str]:
    """Return what is wrong, and what to do about it."""
    numbers = {"count": count, **details}
    match kind:
        case AlertKind.DEAD:
            subject = ngettext(
                "%(count)d notification on %(channel)s became dead: %(code)s",
                "%(count)d notifications on %(channel)s became dead: %(code)s",
                count,
            )
            action = gettext("They are not sent again unless you replay them: see the dead notifications in the admin.")
        case AlertKind.PAUSED:
            subject = ngettext(
                "%(count)d channel of a user on %(channel)s was paused",
                "%(count)d channels of users on %(channel)s were paused",
                count,
            )
            action = gettext("The endpoint refuses messages. See the reason in the list of channels in the admin.")
        case AlertKind.REJECTED:
            subject = ngettext("%(count)d request was rejected", "%(count)d requests were rejected", count)
            action = gettext("The payload was invalid. See the rejected requests in the admin.")
        case AlertKind.LATE:
            subject = gettext("A notification has been due for %(seconds)d s")
            action = gettext("Check that enough workers run. The command deliver_due delivers at once.")
        case AlertKind.SWEEP:
            subject = gettext("The last sweep finished %(seconds)d s ago")
            action = gettext("Check that beat and a worker run. Retries and scheduled notifications wait for them.")
        case _:
            condition = Condition(name=ConditionName(kind.value), severity=Severity.WARNING, details=details)
            return describe_condition(condition)
    return subject % numbers, action


def _format_time(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}"
