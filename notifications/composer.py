"""Deprecated import path of `compose` in notifications.ingest.triggers."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.ingest.triggers")
