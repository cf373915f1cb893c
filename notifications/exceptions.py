"""The base of every exception of this app."""

from __future__ import annotations


class NotificationError(Exception):
    """Base of the exceptions that this app raises."""
