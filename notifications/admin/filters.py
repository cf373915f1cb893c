"""Filters of the admin's lists. Their choices are known in advance, so that no query reads a whole table for them."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.current_states import CURRENT_STATES, DAY
from notifications.conf import service_options
from notifications.models import NotificationRecord
from notifications.states import ErrorCode

Records = QuerySet[NotificationRecord]


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


class ErrorCodeFilter(admin.SimpleListFilter):
    """Selects records by the app's own error codes."""

    title = _("error code")
    parameter_name = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the error codes of the app."""
        return [(code.value, code.value) for code in ErrorCode]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records whose last error has the chosen code."""
        return queryset.filter(last_error_code=self.value()) if self.value() else queryset


class ChannelFilter(admin.SimpleListFilter):
    """Selects records by channel, of those that have a provider."""

    title = _("channel")
    parameter_name = "channel"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the configured channels."""
        return [(channel, channel) for channel in service_options().providers]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records of the chosen channel."""
        return queryset.filter(channel=self.value()) if self.value() else queryset


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
