"""Deprecated import path of notifications.providers.feishu.bot."""

from notifications._moved import forward

RENAMED = {
    "RULES": "ADDRESS_RULES",
}

__getattr__ = forward(__name__, "notifications.providers.feishu.bot", renamed=RENAMED)
