"""Deprecated import path of notifications.providers.response_rules."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.providers.response_rules")
