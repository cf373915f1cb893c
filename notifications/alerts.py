"""Deprecated import path of notifications.monitoring.alerting.dispatcher."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.monitoring.alerting.dispatcher")
