"""The values that the product accepts in a trigger: types, sources and targets."""

from __future__ import annotations

from typing import Any

TRIGGER_TYPES = ("important_urgent_task", "unfinished_feedback")
SOURCES = ("worker_due_job", "api_trigger", "user_feedback")
"""The Go service also has "api_dry_run". It is refused here, because a dry run must not send notifications."""
TARGET_TYPES = ("task_pool", "schedule_event", "task_item")

TRIGGERS: dict[str, Any] = {
    "TRIGGER_COMPOSER": "smartmate.composer.compose",
    "TRIGGER_TYPES": TRIGGER_TYPES,
    "TRIGGER_SOURCES": SOURCES,
    "TRIGGER_TARGET_TYPES": TARGET_TYPES,
}
"""Keys of settings.NOTIFICATIONS."""
