"""The list of notification records. No part of its page reads the whole table, also if a filter matches few records."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Max, Min
from django.http import HttpRequest
from django.utils import timezone

from notifications.admin.overview.charts import format_number
from notifications.models import NotificationRecord

if TYPE_CHECKING:
    Base = Paginator[NotificationRecord]
else:
    Base = Paginator

DATE_FIELD = "created_at"
MAX_COUNTED_RECORDS = 5000
"""A longer list is shown as "at least 5,000"."""


class BoundedPaginator(Base):
    """A paginator that stops counting at `MAX_COUNTED_RECORDS`, or at the next multiple if a later page is shown.

    Args:
        args: As of Django's paginator.
        page: The number of the page that is shown. Later pages can be reached from each page.
        kwargs: As of Django's paginator.
    """

    def __init__(self, *args: Any, page: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.count_limit = MAX_COUNTED_RECORDS * (page * self.per_page // MAX_COUNTED_RECORDS + 1)

    @cached_property
    def count(self) -> int:
        """Return the number of records, at most the limit. They are counted in the order in which an index has them."""
        records: Any = self.object_list
        return int(records[: self.count_limit].count())

    @property
    def capped(self) -> bool:
        """Return True if there may be more records than were counted."""
        return self.count >= self.count_limit


class RecordList(ChangeList):
    """The list of records, whose count and date hierarchy are bounded."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the page. The search form shows no number of results if they were not all counted."""
        super().get_results(request)
        if self.paginator.capped:
            self.full_result_count = self.result_count

    @property
    def result_text(self) -> str:
        """The count with thousands separators, as on the overview."""
        return format_number(self.result_count)

    def with_all_dates(self) -> ChangeList:
        """Return a copy for Django's date hierarchy, which reads nothing but the date parameters and the query set."""
        copied: Any = copy.copy(self)
        copied.queryset = DatePeriods(self.params)
        return copied  # type: ignore[no-any-return]


class DatePeriods:
    """All years, months or days from the first record of the table to the last, in place of the list's query set.

    Django would ask for those that have records of the list. To find the first and the last of a rare filter,
    PostgreSQL could have to read the whole table. The first and the last record of the table are the ends of an index.

    Args:
        parameters: The query parameters of the list.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        names = (f"{DATE_FIELD}__year", f"{DATE_FIELD}__month")
        self.chosen = tuple(int(parameters[name]) for name in names if names[0] in parameters and name in parameters)
        self.limits = NotificationRecord.objects.aggregate(first=Min(DATE_FIELD), last=Max(DATE_FIELD))

    def aggregate(self, **kwargs: Any) -> dict[str, datetime | None]:
        """Return the times of the first and the last record.

        Args:
            kwargs: Ignored; Django asks for `first` and `last`.
        """
        return dict(self.limits)

    def datetimes(self, field_name: str, kind: str) -> list[datetime]:
        """Return the start of each period within the chosen year or month.

        Args:
            field_name: Ignored; Django asks for `DATE_FIELD`.
            kind: "year", "month" or "day".
        """
        if self.limits["first"] is None:
            return []
        start = _period_start(timezone.localtime(self.limits["first"]), kind)
        last = timezone.localtime(self.limits["last"])
        starts = []
        while start <= last:
            if (start.year, start.month)[: len(self.chosen)] == self.chosen:
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
