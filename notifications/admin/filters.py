"""Filters whose choices are known beforehand: asking the table for its distinct values would read all of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Max, Min, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from notifications.conf import service_options
from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet
from notifications.states import ErrorCode

Records = QuerySet[NotificationRecord]


class ErrorCodeFilter(admin.SimpleListFilter):
    """The error codes we know."""

    title = _("error code")
    parameter_name = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the known codes."""
        return [(code.value, code.value) for code in ErrorCode]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records whose last error has this code."""
        return queryset.filter(last_error_code=self.value()) if self.value() else queryset


class ChannelFilter(admin.SimpleListFilter):
    """The channels that have a provider."""

    title = _("channel")
    parameter_name = "channel"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the configured channels."""
        return [(channel, channel) for channel in service_options().providers]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records of this channel."""
        return queryset.filter(channel=self.value()) if self.value() else queryset


class AdminQuerySet(NotificationQuerySet[NotificationRecord]):
    """Records as the admin lists them."""

    def datetimes(self, field_name: str, kind: str, *args: Any, **kwargs: Any) -> list[datetime]:  # type: ignore[override]
        """Return every year, month or day from the first record to the last, for the date hierarchy.

        Django's own tells those without records apart, and reads the whole table for it on each page.
        """
        ends = self.aggregate(first=Min(field_name), last=Max(field_name))
        if ends["first"] is None:
            return []
        step, last = _beginning(timezone.localtime(ends["first"]), kind), timezone.localtime(ends["last"])
        steps = []
        while step <= last:
            steps.append(step)
            step = _beginning(step + _LONGEST[kind], kind)
        return steps


_LONGEST = {"year": timedelta(days=366), "month": timedelta(days=31), "day": timedelta(days=1)}
"""From the beginning of one this leads into the next."""


def _beginning(moment: datetime, kind: str) -> datetime:
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if kind == "day":
        return day
    return day.replace(day=1) if kind == "month" else day.replace(month=1, day=1)
