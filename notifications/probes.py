"""Deprecated import path of notifications.monitoring.middleware."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.monitoring.middleware")
