"""Deprecated import path of notifications.providers.feishu.base_automation."""

from notifications._moved import forward

RENAMED = {
    "RULES": "ADDRESS_RULES",
}

__getattr__ = forward(__name__, "notifications.providers.feishu.base_automation", renamed=RENAMED)
