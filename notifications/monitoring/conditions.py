"""The one judgement of health. /readyz, alerts, notifications_doctor and the overview of the admin present its result.

A condition is something wrong that a person should know. Each has one name, one limit, one severity and one query.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from notifications.conf import service_options
from notifications.monitoring.indicators import Indicators, redis_is_broker
from notifications.telemetry.heartbeats import WORKER_TIMEOUT


class Severity(enum.StrEnum):
    """How bad a condition is."""

    WARNING = "warning"
    """Delivery goes on, but somebody should check the cause."""
    CRITICAL = "critical"
    """Notifications are not delivered, or soon will not be."""


class ConditionName(enum.StrEnum):
    """What can be wrong. The values name the parts of /readyz and of notifications_doctor."""

    POSTGRESQL_AWAY = "database"
    """PostgreSQL does not answer, or refuses a query. Nothing else that needs it can be judged then."""
    MIGRATIONS_PENDING = "migrations"
    """The database lacks migrations that this code has."""
    REDIS_AWAY = "redis"
    """Redis does not answer. Critical where the same Redis is Celery's broker, else a warning."""
    SWEEP_MISSING = "sweep"
    """No sweep has finished for 2 x SWEEP_INTERVAL + 60 s. Retries and scheduled notifications wait for sweeps."""
    OVERDUE = "due"
    """A record has been due for longer than DUE_AGE_LIMIT."""
    NO_WORKER = "workers"
    """No worker process has written a heartbeat for 60 s. Only a warning: `deliver_due --forever` delivers too."""
    BEAT_SILENT = "beat"
    """Beat has sent no sweep for 2 x SWEEP_INTERVAL + 60 s. Only a warning: another process may run the sweeps."""
    DEAD = "dead"
    """Notifications became dead in the last 24 hours."""
    CHANNELS_PAUSED = "paused"
    """Channels of users are paused now."""
    REQUESTS_REJECTED = "rejected"
    """Requests were rejected in the last 24 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that is wrong now."""

    name: ConditionName
    severity: Severity
    details: Mapping[str, Any] = field(default_factory=dict)
    """Numbers and names for the presenters. The function `_find_...` of each condition returns them."""
    covered_by: ConditionName | None = None
    """Another condition that holds and is the cause of this one. Alerts and the overview then show only the cause."""


def evaluate_conditions(
    indicators: Indicators, names: Collection[ConditionName] = tuple(ConditionName)
) -> list[Condition]:
    """Judge the health of delivery.

    Args:
        indicators: Where the numbers are read. Pass a new object for each evaluation.
        names: The conditions to check; the queries of all others are not made.

    Returns:
        The conditions that hold, in the order of ConditionName. Never raises a DatabaseError: the first one becomes
        POSTGRESQL_AWAY, whether or not `names` has it, and no further query is made.
    """
    conditions: list[Condition] = []
    postgresql_away: Condition | None = None
    for name, (severity, find) in _CHECKS.items():
        if name not in names or (postgresql_away and name != ConditionName.REDIS_AWAY):
            continue
        try:
            details = find(indicators)
        except Error as error:
            # Only the type: the text may name the database's address.
            postgresql_away = Condition(
                name=ConditionName.POSTGRESQL_AWAY, severity=Severity.CRITICAL, details={"error": type(error).__name__}
            )
            continue
        if details is not None:
            if name == ConditionName.REDIS_AWAY and details["is_broker"]:
                severity = Severity.CRITICAL
            conditions.append(Condition(name=name, severity=severity, details=details))
    return ([postgresql_away] if postgresql_away else []) + list(_mark_covered(conditions))


def sweep_limit() -> float:
    """Return the seconds without a sweep after which it is missing. Two may fail, and each takes some time."""
    return 2 * service_options().sweep_interval + 60.0


def pending_migrations() -> list[str]:
    """Return the migrations that this code has and the database has not, as "app.name"."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _backwards in plan]


Details = dict[str, Any]


def _find_postgresql_away(indicators: Indicators) -> Details | None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return None


_migrated: set[str] = set()
"""Databases that were up to date. The check reads every migration file, and a release never takes one back."""


def _find_pending_migrations(indicators: Indicators) -> Details | None:
    database = str(connection.settings_dict["NAME"])
    if database in _migrated:
        return None
    if pending := pending_migrations():
        return {"names": ", ".join(pending)}
    _migrated.add(database)
    return None


def _find_redis_away(indicators: Indicators) -> Details | None:
    return {"is_broker": redis_is_broker()} if indicators.redis.away else None


def _find_missing_sweep(indicators: Indicators) -> Details | None:
    ages = indicators.heartbeat_ages
    if not _too_old(ages.sweep):
        return None
    return {
        "seconds": ages.sweep,
        "beat_seconds": ages.beat,
        "beat_silent": _too_old(ages.beat),
        "workers": ages.workers,
    }


def _find_overdue(indicators: Indicators) -> Details | None:
    age, limit = indicators.oldest_due_age, service_options().due_age_limit
    return {"seconds": age, "limit": limit, "workers": indicators.heartbeat_ages.workers} if age > limit else None


def _find_no_worker(indicators: Indicators) -> Details | None:
    ages = indicators.heartbeat_ages
    return None if ages.workers else {"seconds": ages.worker, "limit": WORKER_TIMEOUT.total_seconds()}


def _find_silent_beat(indicators: Indicators) -> Details | None:
    age = indicators.heartbeat_ages.beat
    return {"seconds": age} if _too_old(age) else None


def _find_dead(indicators: Indicators) -> Details | None:
    groups = [group for group in indicators.dead if group.in_period or group.recent]
    return {"count": sum(group.in_period for group in groups), "groups": groups} if groups else None


def _find_paused(indicators: Indicators) -> Details | None:
    channels = indicators.paused
    return {"count": sum(count.total for count in channels.values()), "channels": channels} if channels else None


def _find_rejected(indicators: Indicators) -> Details | None:
    rejected = indicators.rejected
    return {"count": rejected.total, "recent": rejected.recent} if any(rejected) else None


_CHECKS: dict[ConditionName, tuple[Severity, Callable[[Indicators], Details | None]]] = {
    ConditionName.POSTGRESQL_AWAY: (Severity.CRITICAL, _find_postgresql_away),
    ConditionName.MIGRATIONS_PENDING: (Severity.CRITICAL, _find_pending_migrations),
    ConditionName.REDIS_AWAY: (Severity.WARNING, _find_redis_away),
    ConditionName.SWEEP_MISSING: (Severity.CRITICAL, _find_missing_sweep),
    ConditionName.OVERDUE: (Severity.CRITICAL, _find_overdue),
    ConditionName.NO_WORKER: (Severity.WARNING, _find_no_worker),
    ConditionName.BEAT_SILENT: (Severity.WARNING, _find_silent_beat),
    ConditionName.DEAD: (Severity.WARNING, _find_dead),
    ConditionName.CHANNELS_PAUSED: (Severity.WARNING, _find_paused),
    ConditionName.REQUESTS_REJECTED: (Severity.WARNING, _find_rejected),
}


def _too_old(age: float | None) -> bool:
    return age is None or age > sweep_limit()


def _mark_covered(conditions: list[Condition]) -> Iterator[Condition]:
    """Yield the conditions; those that are only effects of another get `covered_by`."""
    held = {condition.name: condition for condition in conditions}
    broker_away = ConditionName.REDIS_AWAY in held and held[ConditionName.REDIS_AWAY].details["is_broker"]
    causes: dict[ConditionName, tuple[ConditionName, ...]] = {
        ConditionName.SWEEP_MISSING: (),
        ConditionName.NO_WORKER: (ConditionName.SWEEP_MISSING,),
        # A worker writes the heartbeat of beat, when it receives the sweep of beat.
        ConditionName.BEAT_SILENT: (ConditionName.SWEEP_MISSING, ConditionName.NO_WORKER),
    }
    for condition in conditions:
        cause = None
        if condition.name in causes:
            cause = next((name for name in causes[condition.name] if name in held), None)
            cause = ConditionName.REDIS_AWAY if broker_away else cause
        yield replace(condition, covered_by=cause)
