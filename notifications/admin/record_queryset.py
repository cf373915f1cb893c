"""The query set behind the admin's list of records."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max, Min
from django.utils import timezone

from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet


class AdminQuerySet(NotificationQuerySet[NotificationRecord]):
    """Records with a date hierarchy that does not read the whole table."""

    def datetimes(self, field_name: str, kind: str, *args: Any, **kwargs: Any) -> list[datetime]:  # type: ignore[override]
        """Return every year, month or day from the first record to the last, for the date hierarchy.

        Django's own method omits periods without records, and reads the whole table on each page for it.

        Args:
            field_name: The column with the time.
            kind: "year", "month" or "day".
            args: Ignored; part of Django's signature.
            kwargs: Ignored; part of Django's signature.
        """
        limits = self.aggregate(first=Min(field_name), last=Max(field_name))
        if limits["first"] is None:
            return []
        start, last = _period_start(timezone.localtime(limits["first"]), kind), timezone.localtime(limits["last"])
        starts = []
        while start <= last:
            starts.append(start)
            start = _period_start(start + _LONGEST_PERIOD[kind], kind)
        return starts


_LONGEST_PERIOD = {"year": timedelta(days=366), "month": timedelta(days=31), "day": timedelta(days=1)}
"""Added to the start of a period, this always falls into the next period."""


def _period_start(value: datetime, kind: str) -> datetime:
    day = value.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "day":
        return day
    return day.replace(day=1) if kind == "month" else day.replace(month=1, day=1)
