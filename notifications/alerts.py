"""Deprecated import path of notifications.monitoring.alerting.dispatcher."""

from notifications._moved import forward

__getattr__ = forward(
    __name__,
    "notifications.monitoring.alerting.dispatcher",
    renamed={"alert_told": "alert_sent", "look": "evaluate", "look_now_and_then": "evaluate_if_due"},
)
