"""Filters of the admin's lists. Their choices are known in advance, so that no query reads a whole table for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, QueryDict
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.current_states import CURRENT_STATES, DAY
from notifications.conf import service_options
from notifications.models import NotificationRecord
from notifications.querysets import LISTED
from notifications.states import SCHEDULED, UNDELIVERED, ErrorCode, Priority

Records = QuerySet[NotificationRecord]

_PRIORITIES = {str(value): label for value, label in Priority.choices}
"""The labels by the value of the URL parameter."""
_HAS_INDEX: dict[str, tuple[str, Callable[[str], bool]]] = {
    "status__exact": ("status", lambda value: value in UNDELIVERED),
    "code": ("last_error_code", bool),
    "channel": ("channel", lambda value: value not in ("", "feishu")),
    "priority": ("priority", lambda value: value in _PRIORITIES and value != str(Priority.NORMAL)),
}
"""The filters that have an index `notification_by_...`: its first column, and the values that it has."""


def indexed_columns(parameters: QueryDict) -> list[str]:
    """Return the columns that are filtered by a value for which an index has exactly these records, newest first.

    Args:
        parameters: The query parameters of the list.
    """
    chosen = ((parameters.getlist(name), *rest) for name, rest in _HAS_INDEX.items())
    return [column for values, column, has_value in chosen if len(values) == 1 and has_value(values[0])]


def _range_of(column: str, value: str) -> Q:
    """Return the condition that a column has a value, in the only form that makes PostgreSQL read its index in order.

    With `column = value` PostgreSQL ignores the column in ORDER BY. It may then read the index on `created_at`: it
    expects such records everywhere. If they are old, it reads all newer records first.
    """
    return Q(**{f"{column}__gte": value, f"{column}__lte": value}) & LISTED


class CurrentStateFilter(admin.SimpleListFilter):
    """Selects records by their current state."""

    title = _("current state")
    parameter_name = "now"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the names and labels of the current states."""
        return [(name, str(state.label)) for name, state in CURRENT_STATES.items()]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records in the chosen state."""
        name = self.value() or ""
        return CURRENT_STATES[name].filter(queryset, name) if name in CURRENT_STATES else queryset


class StatusFilter(admin.ChoicesFieldListFilter):
    """Selects records by status."""

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records of the chosen status. Waiting ones are searched in the due index, which has no others."""
        if "status" in indexed_columns(request.GET):
            return queryset.filter(_range_of("status", request.GET["status__exact"]), status__in=UNDELIVERED)
        if set(request.GET.getlist("status__exact", ["none"])) <= set(SCHEDULED):
            queryset = queryset.filter(next_attempt_at__isnull=False)
        return cast("Records", super().queryset(request, queryset))


class ErrorCodeFilter(admin.SimpleListFilter):
    """Selects records by the app's own error codes."""

    title = _("error code")
    parameter_name = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the error codes of the app."""
        return [(code.value, code.value) for code in ErrorCode]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records whose last error has the chosen code."""
        code = self.value()
        return queryset.filter(_range_of("last_error_code", code)) if code else queryset


class ChannelFilter(admin.SimpleListFilter):
    """Selects records by channel, of those that have a provider."""

    title = _("channel")
    parameter_name = "channel"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the configured channels."""
        return [(channel, channel) for channel in service_options().providers]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records of the chosen channel."""
        if "channel" in indexed_columns(request.GET):
            return queryset.filter(_range_of("channel", request.GET["channel"]))
        return queryset.filter(channel=self.value()) if self.value() else queryset


class PriorityFilter(admin.SimpleListFilter):
    """Selects records by priority."""

    title = _("priority")
    parameter_name = "priority"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the priorities."""
        return [(value, str(label)) for value, label in _PRIORITIES.items()]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records of the chosen priority."""
        if "priority" in indexed_columns(request.GET):
            return queryset.filter(_range_of("priority", request.GET["priority"]))
        value = self.value()
        return queryset.filter(priority=int(value)) if value in _PRIORITIES else queryset


class IdentifierFilter(admin.SimpleListFilter):
    """Selects records that share an identifier. Shown only if the URL already contains one."""

    field: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the identifier in the URL as the only choice."""
        values = request.GET.getlist(self.parameter_name or "")
        return [(value, value) for value in values[:1] if value]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records with this identifier."""
        value = self.value()
        if not value:
            return queryset
        return queryset.none() if "\0" in value else queryset.filter(**{self.field: value})


class TraceFilter(IdentifierFilter):
    """Selects the records of one trace."""

    title = _("trace id")
    parameter_name = "trace"
    field = "trace_id"


class PreviewFilter(IdentifierFilter):
    """Selects the records of one preview."""

    title = _("preview id")
    parameter_name = "preview"
    field = "preview_id"


class RequestFilter(IdentifierFilter):
    """Selects the records of one message, for all its recipients."""

    title = _("key")
    parameter_name = "request"
    field = "request_key"


class LastDayFilter(admin.SimpleListFilter):
    """Selects the rows created within the last 24 hours, the period that the overview counts."""

    title = _("time")
    parameter_name = "now"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the only choice."""
        return [("day", gettext("in the last 24 hours"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of the last 24 hours if the filter is chosen."""
        return queryset.filter(created_at__gt=Now() - DAY) if self.value() == "day" else queryset
