"""Deprecated import path of notifications.security.log_redaction."""

from notifications._moved import forward

RENAMED = {
    "black_out": "redact_text",
}

__getattr__ = forward(__name__, "notifications.security.log_redaction", renamed=RENAMED)
