"""What an alert says, in the language of ALERT_LANGUAGE."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone, translation
from django.utils.translation import gettext, ngettext

from notifications.conf import service_options
from notifications.states import AlertKind


def compose(kind: str, count: int, facts: dict[str, Any], since: datetime, over: datetime | None) -> tuple[str, str]:
    """Return subject and text. over: since when it is over; the all-clear then."""
    with translation.override(service_options().alert_language or settings.LANGUAGE_CODE):
        subject, remedy = _words(AlertKind(kind), count, facts)
        if over is None:
            began = gettext("Since %(time)s.") % {"time": _time(since)}
            return subject, f"{subject}\n{began}\n{remedy}"
        subject = gettext("All clear: %(subject)s") % {"subject": subject}
        return subject, f"{subject}\n{_time(since)} - {_time(over)}"


def _words(kind: AlertKind, count: int, facts: dict[str, Any]) -> tuple[str, str]:
    """Return what is wrong, and what to do about it."""
    numbers = {"count": count, **facts}
    match kind:
        case AlertKind.DEAD:
            subject = ngettext(
                "%(count)d notification on %(channel)s died: %(code)s",
                "%(count)d notifications on %(channel)s died: %(code)s",
                count,
            )
            remedy = gettext("Nobody will try again unless you replay: see the admin's list of dead notifications.")
        case AlertKind.PAUSED:
            subject = ngettext(
                "%(count)d channel of a user on %(channel)s was paused",
                "%(count)d channels of users on %(channel)s were paused",
                count,
            )
            remedy = gettext("Their endpoints refused too often: see the admin's list of channels.")
        case AlertKind.REJECTED:
            subject = ngettext("%(count)d request was refused", "%(count)d requests were refused", count)
            remedy = gettext("What a producer sent cannot be accepted: see the admin's list of rejected requests.")
        case AlertKind.LATE:
            subject = gettext("A notification has been due for %(seconds)d s")
            remedy = gettext("Are workers running, and enough of them? manage.py deliver_due delivers at once.")
        case AlertKind.SWEEP:
            subject = gettext("The last sweep ended %(seconds)d s ago")
            remedy = gettext("Are beat and a worker running? Retries and scheduled notifications wait for them.")
    return subject % numbers, remedy


def _time(moment: datetime) -> str:
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M:%S %Z}"
