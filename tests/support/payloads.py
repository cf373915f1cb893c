"""Payloads that break no rule, with fields to change."""

from __future__ import annotations

from typing import Any


def trigger(**changes: Any) -> dict[str, Any]:
    """Return the payload of a trigger, with some fields changed."""
    return {
        "trigger_id": "trg-1",
        "user_id": 42,
        "trigger_type": "important_urgent_task",
        "source": "worker_due_job",
        "target_type": "task_pool",
        "target_id": 9,
        "requested_at": "2026-05-01T07:30:00Z",
    } | changes
