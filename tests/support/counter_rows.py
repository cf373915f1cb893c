"""Rows of the counters."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone

from notifications.models import Counter
from notifications.states import Measure


def make_counter(measure: Measure, count: int, *, hour: datetime | None = None, **fields: Any) -> None:
    """Store a counter of this hour, or of another one."""
    defaults = {
        "channel": "feishu",
        "shard": 0,
        "outcome": "success" if measure == Measure.ATTEMPTS else "",
        "error_code": "",
        "bucket": 0,
        "attempts": 0,
        "seconds": 0,
    }
    at = (hour or timezone.now()).replace(minute=0, second=0, microsecond=0)
    Counter.objects.create(measure=measure, hour=at, count=count, **(defaults | fields))
