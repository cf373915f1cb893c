"""Deprecated import path of notifications.providers.http.url_rules."""

from notifications._moved import forward

RENAMED = {"ODD_CHARACTERS": "FORBIDDEN_CHARACTERS", "NO_ADDRESS": "NOT_AN_ADDRESS", "EXTRAS": "EXTRA_PARTS"}

__getattr__ = forward(__name__, "notifications.providers.http.url_rules", renamed=RENAMED)
