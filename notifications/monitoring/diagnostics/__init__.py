"""Checks of `manage.py notifications_doctor`: everything that delivery depends on, with what to do about a problem.

The health of delivery is judged by `monitoring.conditions`. The checks here add what only an operator can look at:
settings, clocks, keys, and how Redis and the broker are set up. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from django.core import checks
from django.db import Error, router
from django.utils.translation import gettext

from notifications.models import NotificationRecord
from notifications.monitoring.alerting.receivers import configured_receivers
from notifications.monitoring.conditions import Condition, ConditionName, Severity, evaluate_conditions
from notifications.monitoring.diagnostics.check_result import ERROR, OK, WARNING, CheckResult
from notifications.monitoring.diagnostics.conditions import report_condition, report_conditions
from notifications.monitoring.diagnostics.database import check_clock, check_keys
from notifications.monitoring.diagnostics.redis_and_broker import check_broker, check_nudges, check_redis
from notifications.monitoring.indicators import Indicators

__all__ = ["ERROR", "OK", "WARNING", "CheckResult", "run_diagnostics"]


def run_diagnostics() -> Iterator[CheckResult]:
    """Yield the results of all checks.

    Raises:
        ImproperlyConfigured: The settings cannot be read at all.
    """
    yield from _check_settings()
    indicators = Indicators()
    conditions = evaluate_conditions(indicators)
    held = {condition.name: condition for condition in conditions}
    away = held.get(ConditionName.POSTGRESQL_AWAY)
    for name, check in (("database", check_clock), ("keys", check_keys), ("nudges", check_nudges)):
        if away:
            yield report_condition(away, name)
            continue
        try:
            yield from check()
        except Error as error:
            yield _postgresql_away(name, error)
    yield from report_conditions(conditions, indicators)
    if ConditionName.REDIS_AWAY in held:
        yield report_condition(held[ConditionName.REDIS_AWAY])
    else:
        yield from check_redis()
    yield from check_broker()
    yield _check_receivers()


def _postgresql_away(name: str, error: Error) -> CheckResult:
    # Only the type: the text may name the database's address.
    details = {"error": type(error).__name__}
    condition = Condition(name=ConditionName.POSTGRESQL_AWAY, severity=Severity.CRITICAL, details=details)
    return report_condition(condition, name)


def _check_settings() -> Iterator[CheckResult]:
    """Run Django's system checks, those for deployment and for the database included."""
    messages = [
        message
        for message in _run_checks()
        if not message.is_silenced() and (message.level >= checks.ERROR or _is_own_warning(message))
    ]
    for message in messages:
        yield CheckResult(
            name="settings",
            state=ERROR if message.level >= checks.ERROR else WARNING,
            text=f"{message.msg} ({message.id})",
            remedy=message.hint or gettext("See docs/settings.md."),
        )
    if not messages:
        yield CheckResult(name="settings", state=OK, text=gettext("The settings are valid."))


def _is_own_warning(message: checks.CheckMessage) -> bool:
    return message.level >= checks.WARNING and str(message.id).startswith("notifications.")


def _run_checks() -> list[checks.CheckMessage]:
    try:
        databases = [router.db_for_write(NotificationRecord)]
        return checks.run_checks(include_deployment_checks=True, databases=databases)
    except Error:  # reported by the check of the database; the other checks run without it
        return checks.run_checks(include_deployment_checks=True)


def _check_receivers() -> CheckResult:
    if receivers := configured_receivers():
        text = gettext("Alerts are sent by: %(names)s.") % {"names": ", ".join(receivers)}
        return CheckResult(name="alerts", state=OK, text=text)
    remedy = gettext('Set NOTIFICATIONS["ALERT_EMAILS"] or NOTIFICATIONS["ALERT_FEISHU_WEBHOOK"].')
    return CheckResult(name="alerts", state=WARNING, text=gettext("No alert receiver is configured."), remedy=remedy)
