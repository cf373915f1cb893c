"""What /readyz answers: the conditions that hold, part by part."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from django.utils.translation import gettext

from notifications.monitoring.condition_texts import describe_condition
from notifications.monitoring.conditions import Condition, ConditionName, evaluate_conditions
from notifications.monitoring.indicators import Indicators

PARTS = tuple(name.value for name in ConditionName)
"""The parts of the answer. Each shows the condition of the same name."""
DECIDING_PARTS = ("database", "migrations", "sweep", "due")
"""Only these make /readyz answer 503. Without the others requests are still accepted and nothing is lost."""
WITHOUT_FIGURES = (ConditionName.DEAD, ConditionName.CHANNELS_PAUSED, ConditionName.REQUESTS_REJECTED)
"""Shown without numbers: METRICS_TOKEN guards the same numbers at /metrics, but nothing guards /readyz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentStatus:
    """The status of one part."""

    state: str
    """`ok`; `failed`: something is wrong and makes /readyz answer 503; `degraded`: wrong without that."""
    reason: str = ""
    severity: str = ""
    """Severity of the condition: `warning`, `critical`, or empty where nothing is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """The status of all requested parts."""

    parts: dict[str, ComponentStatus]

    @property
    def ready(self) -> bool:
        """Whether no part failed."""
        return all(part.state != "failed" for part in self.parts.values())

    def as_json(self) -> dict[str, Any]:
        """Return the body of the answer: {"ready": bool, "parts": {name: {"state", "reason", "severity"}}}."""
        return {"ready": self.ready, "parts": {name: asdict(part) for name, part in self.parts.items()}}


def readiness(*, exclude: Collection[str] = ()) -> Readiness:
    """Evaluate the parts of /readyz.

    Args:
        exclude: Parts (of PARTS) that are left out; their queries are not made.

    Returns:
        The status of each other part. Never raises, and waits for PostgreSQL at most once.
    """
    names = [name for name in ConditionName if name not in exclude]
    conditions = {condition.name: condition for condition in evaluate_conditions(Indicators(), names)}
    away = conditions.get(ConditionName.POSTGRESQL_AWAY)
    # Nothing but Redis can be judged without PostgreSQL.
    return Readiness(
        parts={
            name.value: _status(name, (away if name != ConditionName.REDIS_AWAY else None) or conditions.get(name))
            for name in names
        }
    )


def _status(name: ConditionName, condition: Condition | None) -> ComponentStatus:
    if condition is None:
        return ComponentStatus(state="ok")
    if condition.name in WITHOUT_FIGURES:
        reason = {
            ConditionName.DEAD: gettext("Notifications became dead in the last 24 hours."),
            ConditionName.CHANNELS_PAUSED: gettext("Channels of users are paused."),
            ConditionName.REQUESTS_REJECTED: gettext("Requests were rejected in the last 24 hours."),
        }[condition.name]
    else:
        reason = describe_condition(condition).title
    return ComponentStatus(
        state="failed" if name in DECIDING_PARTS else "degraded", reason=reason, severity=condition.severity.value
    )
