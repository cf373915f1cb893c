"""Deprecated import path of notifications.ingest.triggers."""

from notifications._moved import forward

__getattr__ = forward(
    __name__,
    "notifications.ingest.triggers",
    renamed={"WINDOW": "DEDUPE_WINDOW_SECONDS", "IDENTIFIERS": "IDENTIFIER_LENGTHS"},
)
