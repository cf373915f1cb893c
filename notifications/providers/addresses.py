"""Deprecated import path of notifications.providers.http.url_rules."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.providers.http.url_rules")
