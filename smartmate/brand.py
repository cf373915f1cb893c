"""The product's name and texts: the Go service's, on which users' flows were built."""

from __future__ import annotations

from typing import Any

BRAND: dict[str, Any] = {
    "PROJECT_NAME": "SmartMate",
    "EVENT_NAME": "smartmate.schedule_adjustment_ready",
    "MESSAGE_TITLE": "SmartMate 日程调整建议",
    "ACTION_TEXT": "查看并确认调整",
    "FALLBACK_TEXT": "我为你生成了一份日程调整建议，请回到系统确认是否应用。",
}
"""Keys of settings.NOTIFICATIONS."""
