"""What operators see and do: every delivery, its attempts, replay and cancel, users' channels, refused requests."""

from __future__ import annotations

from notifications.admin import channels, jobs, records, rejected, replays

__all__ = ["channels", "jobs", "records", "rejected", "replays"]
