"""Deprecated import path of notifications.security.error_reports."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.security.error_reports")
