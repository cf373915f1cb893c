"""The Django admin for operators: notifications, attempts, channels, replays, rejected requests, jobs, signals.

The package holds pages, filters, actions and their texts. It holds no delivery logic: it calls `api`, `channels` and
`replay`. Only `templatetags` may import it.
"""

from __future__ import annotations

from notifications.admin import channels, due_jobs, records, rejected_requests, replay_operations, signals

__all__ = ["channels", "due_jobs", "records", "rejected_requests", "replay_operations", "signals"]
