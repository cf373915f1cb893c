"""The conditions of health as results of the doctor: one result for each condition, whether it holds or not."""

from __future__ import annotations

from collections.abc import Iterator

from django.utils.translation import gettext, ngettext

from notifications.conf import service_options
from notifications.monitoring.condition_texts import describe_condition, format_age
from notifications.monitoring.conditions import Condition, ConditionName, Severity
from notifications.monitoring.diagnostics.check_result import ERROR, OK, WARNING, CheckResult
from notifications.monitoring.indicators import Indicators


def report_conditions(conditions: list[Condition], indicators: Indicators) -> Iterator[CheckResult]:
    """Yield a result for each condition of ConditionName but `database` and `redis`, which have checks of their own.

    Args:
        conditions: The result of `evaluate_conditions`.
        indicators: The numbers that these conditions were judged by.
    """
    held = {condition.name: condition for condition in conditions}
    away = held.get(ConditionName.POSTGRESQL_AWAY)
    for name in ConditionName:
        if name in (ConditionName.POSTGRESQL_AWAY, ConditionName.REDIS_AWAY):
            continue
        if away:
            yield report_condition(away, name)
        elif name in held:
            yield report_condition(held[name])
        else:
            yield CheckResult(name=name.value, state=OK, text=_describe_ok(name, indicators))


def report_condition(condition: Condition, name: str = "") -> CheckResult:
    """Return the result of a condition that holds.

    Args:
        condition: The condition.
        name: What was checked, where it cannot be judged because of this condition; its own name by default.
    """
    title, action = describe_condition(condition)
    state = ERROR if condition.severity == Severity.CRITICAL else WARNING
    return CheckResult(name=name or condition.name.value, state=state, text=title, remedy=action)


def _describe_ok(name: ConditionName, indicators: Indicators) -> str:
    match name:
        case ConditionName.SWEEP_MISSING:
            return gettext("The last sweep finished %(age)s ago.") % {
                "age": format_age(indicators.heartbeat_ages.sweep)
            }
        case ConditionName.BEAT_SILENT:
            return gettext("The last heartbeat was %(age)s ago.") % {"age": format_age(indicators.heartbeat_ages.beat)}
        case ConditionName.NO_WORKER:
            count = indicators.heartbeat_ages.workers
            text = ngettext("%(count)d worker process is running.", "%(count)d worker processes are running.", count)
            return text % {"count": count}
        case ConditionName.OVERDUE:
            text = gettext("The oldest due notification has been due for %(age)s; the limit is %(limit)s.")
            limit = format_age(service_options().due_age_limit)
            return text % {"age": format_age(indicators.oldest_due_age), "limit": limit}
        case ConditionName.MIGRATIONS_PENDING:
            return gettext("All migrations are applied.")
        case ConditionName.DEAD:
            return gettext("No notification became dead in the last 24 hours.")
        case ConditionName.CHANNELS_PAUSED:
            return gettext("No channel is paused.")
        case _:
            return gettext("No request was rejected in the last 24 hours.")
