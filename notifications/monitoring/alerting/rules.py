"""Which alerts are active: turns the conditions of health into alerts, one for each cause."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from notifications.monitoring.conditions import Condition, ConditionName
from notifications.states import AlertKind


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveAlert:
    """Something that people should know now."""

    cause: str
    """Alerts of the same cause are one alert."""
    kind: AlertKind
    count: int = 1
    details: dict[str, Any] = field(default_factory=dict)
    """JSON values for the message."""


def active_alerts(conditions: list[Condition]) -> Iterator[ActiveAlert]:
    """Yield the alerts of the conditions that hold.

    What happened is alerted for ALERT_WINDOW seconds: a death, a pause, a rejected request. Every other condition is
    alerted while it lasts. No alert is made for a condition that is covered by its cause, and none for a part that was
    never started: a new site is not yet a broken one.

    Args:
        conditions: The result of `evaluate_conditions`.
    """
    for condition in conditions:
        if condition.covered_by is None:
            for alert in _alerts_of(condition.name, condition.details):
                alert.details["severity"] = condition.severity.value
                yield alert


def _alerts_of(name: ConditionName, details: Mapping[str, Any]) -> Iterator[ActiveAlert]:
    match name:
        case ConditionName.DEAD:
            for group in details["groups"]:
                if group.recent:
                    yield ActiveAlert(
                        cause=f"dead:{group.channel}:{group.error_code}",
                        kind=AlertKind.DEAD,
                        count=group.recent,
                        details={"channel": group.channel, "code": group.error_code},
                    )
        case ConditionName.CHANNELS_PAUSED:
            for channel, count in details["channels"].items():
                if count.recent:
                    yield ActiveAlert(
                        cause=f"paused:{channel}",
                        kind=AlertKind.PAUSED,
                        count=count.recent,
                        details={"channel": channel},
                    )
        case ConditionName.REQUESTS_REJECTED:
            if details["recent"]:
                yield ActiveAlert(cause="rejected", kind=AlertKind.REJECTED, count=details["recent"])
        case ConditionName.OVERDUE:
            yield ActiveAlert(cause="late", kind=AlertKind.LATE, details={"seconds": round(details["seconds"])})
        case ConditionName.SWEEP_MISSING if details["seconds"] is not None:
            yield ActiveAlert(cause="sweep", kind=AlertKind.SWEEP, details={"seconds": round(details["seconds"])})
        case ConditionName.NO_WORKER | ConditionName.BEAT_SILENT if details["seconds"] is not None:
            yield ActiveAlert(cause=name.value, kind=AlertKind(name.value), details=dict(details))
        case ConditionName.MIGRATIONS_PENDING | ConditionName.REDIS_AWAY:
            yield ActiveAlert(cause=name.value, kind=AlertKind(name.value), details=dict(details))
