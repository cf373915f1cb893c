"""Deprecated import path of notifications.providers.standard_webhooks."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.providers.standard_webhooks")
