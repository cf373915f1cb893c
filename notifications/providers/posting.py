"""Deprecated import path of notifications.providers.webhook_base."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.providers.webhook_base")
