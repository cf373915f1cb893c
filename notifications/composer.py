"""From a trigger to what the user reads. TRIGGER_COMPOSER names the function that does it; this is the default."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

from django.utils.module_loading import import_string

from notifications.conf import DEFAULT_FALLBACK_TEXT, service_options
from notifications.ingest.triggers import Trigger

Composer = Callable[[Trigger], Iterable[dict[str, Any]]]
"""Takes a trigger, gives the payloads of its notifications, as docs/events.md describes them."""

SUMMARIES = {
    "important_urgent_task": "你有一项重要且紧急的任务还没有安排时间，我为你准备了一份日程调整建议。",
    "unfinished_feedback": "你反馈有任务没有完成，我为你准备了一份补做安排的建议。",
}
PATHS = {"task_pool": "/tasks", "schedule_event": "/schedule/events", "task_item": "/tasks/items"}


def composer() -> Composer:
    """Return the composer of this project. Raises ImportError if there is none of that name."""
    return cast(Composer, import_string(service_options().trigger_composer))


def compose(trigger: Trigger) -> Iterable[dict[str, Any]]:
    """Make one notification, with a link to what the trigger is about."""
    yield {
        "user_id": trigger.user_id,
        "trigger_id": trigger.trigger_id,
        "preview_id": trigger.trigger_id,
        "trigger_type": trigger.trigger_type,
        "target_type": trigger.target_type,
        "target_id": trigger.target_id,
        "dedupe_key": trigger.dedupe_key,
        "target_url": f"{PATHS[trigger.target_type]}/{trigger.target_id}",
        "summary_text": SUMMARIES[trigger.trigger_type],
        "fallback_text": DEFAULT_FALLBACK_TEXT,
        "trace_id": trigger.trace_id,
        "requested_at": trigger.requested_at.isoformat(),
    }
