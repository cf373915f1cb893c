"""Deprecated import path of notifications.providers.standard_webhooks."""

from notifications._moved import forward

RENAMED = {
    "ANSWERS": "STANDARD_WEBHOOK_RULES",
    "RULES": "ADDRESS_RULES",
    "as_json": "encode_json",
}

__getattr__ = forward(__name__, "notifications.providers.standard_webhooks", renamed=RENAMED)
