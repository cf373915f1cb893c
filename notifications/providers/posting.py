"""Deprecated import path of notifications.providers.webhook_base."""

from notifications._moved import forward

RENAMED = {
    "Answer": "HttpResponse",
    "Table": "RuleTable",
    "judge": "interpret_response",
    "as_json": "encode_json",
}

__getattr__ = forward(__name__, "notifications.providers.webhook_base", renamed=RENAMED)
