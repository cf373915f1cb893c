"""The doctor: looks at everything delivery rests on, and says what to do about what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from django.core import checks
from django.db import Error, router
from django.utils.translation import gettext

from notifications.models import NotificationRecord
from notifications.monitoring.alerting.receivers import configured_receivers
from notifications.monitoring.diagnostics.check_result import ERROR, OK, WARNING, Sign
from notifications.monitoring.diagnostics.database import clock, due, keys, migrations, sweep
from notifications.monitoring.diagnostics.redis_and_broker import broker, redis_server

__all__ = ["ERROR", "OK", "WARNING", "Sign", "examine"]


def examine() -> Iterator[Sign]:
    """Yield what is found, thing by thing. Raises ImproperlyConfigured where the settings cannot be read at all."""
    yield from _settings()
    for name, look in (
        ("database", clock), ("migrations", migrations), ("sweep", sweep), ("due", due), ("keys", keys)
    ):  # fmt: skip
        try:
            yield from look()
        except Error as error:
            # The type only: the text may name the database's address.
            yield Sign(
                name=name,
                state=ERROR,
                text=gettext("PostgreSQL failed: %(error)s") % {"error": type(error).__name__},
                remedy=gettext("Is it running, and is DATABASE_URL right?"),
            )
    yield from redis_server()
    yield from broker()
    yield from _told()


def _settings() -> Iterator[Sign]:
    """The system checks, those for deployment and for the database included."""
    found = [
        message
        for message in _checks()
        if not message.is_silenced() and (message.level >= checks.ERROR or _is_own_warning(message))
    ]
    for message in found:
        yield Sign(
            name="settings",
            state=ERROR if message.level >= checks.ERROR else WARNING,
            text=f"{message.msg} ({message.id})",
            remedy=message.hint or gettext("See docs/settings.md."),
        )
    if not found:
        yield Sign(name="settings", state=OK, text=gettext("they can work together"))


def _is_own_warning(message: checks.CheckMessage) -> bool:
    return message.level >= checks.WARNING and str(message.id).startswith("notifications.")


def _checks() -> list[checks.CheckMessage]:
    try:
        databases = [router.db_for_write(NotificationRecord)]
        return checks.run_checks(include_deployment_checks=True, databases=databases)
    except Error:  # said below; the rest can be looked at without it
        return checks.run_checks(include_deployment_checks=True)


def _told() -> Iterator[Sign]:
    if ways := configured_receivers():
        text = gettext("a person is told by: %(ways)s") % {"ways": ", ".join(ways)}
        yield Sign(name="alerts", state=OK, text=text)
    else:
        remedy = gettext("Set NOTIFICATIONS_ALERT_EMAILS or NOTIFICATIONS_ALERT_FEISHU_WEBHOOK.")
        yield Sign(name="alerts", state=WARNING, text=gettext("nobody is told"), remedy=remedy)
