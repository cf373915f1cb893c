"""The product's notification of a trigger. settings.NOTIFICATIONS["TRIGGER_COMPOSER"] names it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from notifications.conf import service_options
from notifications.ingest.triggers import Trigger

SUMMARIES = {
    "important_urgent_task": "你有一项重要且紧急的任务还没有安排时间，我为你准备了一份日程调整建议。",
    "unfinished_feedback": "你反馈有任务没有完成，我为你准备了一份补做安排的建议。",
}
"""Text by trigger type."""
PATHS = {"task_pool": "/tasks", "schedule_event": "/schedule/events", "task_item": "/tasks/items"}
"""Path of the site by target type."""


def compose(trigger: Trigger) -> Iterable[dict[str, Any]]:
    """Yield the payload of one notification, with a link to the trigger's target."""
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
        "fallback_text": service_options().fallback_text,
        "trace_id": trigger.trace_id,
        "requested_at": trigger.requested_at.isoformat(),
    }
