"""Payloads that break no rule, with fields to change."""

from __future__ import annotations

from typing import Any

Payload = Any
"""A NotificationPayload, but tests also break it."""


def payload(**changes: Any) -> Payload:
    """Return a payload that breaks no rule, with some fields changed."""
    return {
        "user_id": 42,
        "trigger_id": "trg-1",
        "preview_id": "prv-1",
        "trigger_type": "important_urgent_task",
        "target_type": "task_pool",
        "target_id": 9,
        "dedupe_key": "42:important_urgent_task:1",
        "target_url": "/assistant/c-1",
        "summary_text": "写周报改到周四上午",
        "fallback_text": "请回到系统查看",
        "trace_id": "trace-1",
        "requested_at": "2026-05-01T07:59:00Z",
    } | changes


def payload_of(user: int, key: str, **changes: Any) -> dict[str, Any]:
    """Return a payload with no more than the required fields, for a user."""
    return {
        "user_id": user,
        "preview_id": "prv-1",
        "dedupe_key": key,
        "target_url": "/assistant/c-1",
        "summary_text": "写周报改到周四上午",
        "requested_at": "2026-05-01T07:59:00Z",
    } | changes


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
