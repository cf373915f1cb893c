"""The list of notification records and the page of one. Records are read-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from notifications.admin.attempts import AttemptInline
from notifications.admin.current_states import CURRENT_STATES
from notifications.admin.display import EMPTY_VALUE, STYLE
from notifications.admin.filters import (
    ChannelFilter,
    CurrentStateFilter,
    ErrorCodeFilter,
    PreviewFilter,
    PriorityFilter,
    RequestFilter,
    StatusFilter,
    TraceFilter,
    indexed_columns,
)
from notifications.admin.record_actions import RecordActionsAdmin
from notifications.admin.record_columns import RecordColumns
from notifications.admin.record_explanations import explain_record
from notifications.admin.record_list import DATE_FIELD, BoundedPaginator, RecordList
from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet

if TYPE_CHECKING:
    Records = QuerySet[NotificationRecord]

TARGET_FIELDS = ("kind_of_trigger", "kind_of_target", "target_id")
RECORD_COLUMNS = tuple(name for name in vars(RecordColumns) if not name.startswith("_"))
"""The names of all columns that `RecordColumns` defines."""
MAX_PAGE_DIGITS = 9
"""A page with a longer number does not exist."""


@admin.register(NotificationRecord)
class NotificationRecordAdmin(RecordColumns, RecordActionsAdmin):
    """Notification records: list, search, replay, send now, cancel."""

    list_display = ("state", "key", "owner", "code", "attempts", "next_attempt", "requested", "channel")
    list_display_links = ("state", "key")
    list_filter = (
        CurrentStateFilter,
        ("status", StatusFilter),
        ErrorCodeFilter,
        ChannelFilter,
        PriorityFilter,
        TraceFilter,
        PreviewFilter,
        RequestFilter,
        "created_at",
    )
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # counting each choice would read the whole table
    date_hierarchy = DATE_FIELD
    ordering = ("-created_at", "-id")
    sortable_by = ("requested",)  # the only column with an index to sort by
    search_fields = ("dedupe_key",)  # shows the search box; get_search_results does the search
    search_help_text = _("Enter a complete dedupe key, trace id, user id, user name or record id.")
    inlines = (AttemptInline,)
    empty_value_display = EMPTY_VALUE
    fieldsets = (
        (_("State"), {"fields": ("state", "attempts", "round", "next_time", "code", "error")}),
        (
            _("Message"),
            {
                "fields": (
                    "owner",
                    "channel",
                    "endpoint_link",
                    "priority",
                    "message_kind",
                    "heading",
                    "message",
                    "path",
                    "replaced",
                )
            },
        ),
        (
            _("Request and response"),
            {
                "fields": (
                    "request_json",
                    "response_json",
                    "message_id",
                    "summary",
                    "fallback",
                    "fallback_used",
                    "content_json",
                )
            },
        ),
        (
            _("Identifiers"),
            {"fields": ("id", "caller_key", "key", "order", "trace", "trigger", "preview", *TARGET_FIELDS)},
        ),
        (_("Times"), {"fields": ("requested_time", "changed_time", "sent_time")}),
    )
    readonly_fields = ("id", *RECORD_COLUMNS)

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: only requests create records."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: records are never edited here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: the pruner deletes records."""
        return False

    def get_queryset(self, request: HttpRequest) -> Records:
        """Return records and prefetch their users. A join would hide the records of deleted users."""
        return NotificationRecord.objects.order_by(*self.get_ordering(request)).prefetch_related("user", "endpoint")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Omit the user's channel for those who may not view channels."""
        if request.user.has_perm("notifications.view_usernotificationchannel"):
            return self.fieldsets
        return [
            (title, {"fields": [name for name in options["fields"] if name != "endpoint_link"]})
            for title, options in self.fieldsets
        ]

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Return newest first, or the index order of the chosen current state.

        A filtered column comes first: its index has this order. All records of the list have the same value there.
        """
        state = CURRENT_STATES.get(request.GET.get("now", ""))
        return state.order if state else (*(f"-{name}" for name in indexed_columns(request.GET)[:1]), *self.ordering)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the class of the list."""
        return RecordList

    def get_paginator(
        self, request: HttpRequest, queryset: Any, per_page: int, *args: Any, **kwargs: Any
    ) -> BoundedPaginator:
        """Return the paginator of the list."""
        page = request.GET.get(PAGE_VAR, "")
        number = int(page) if page.isdecimal() and len(page) <= MAX_PAGE_DIGITS else 1
        return BoundedPaginator(queryset, per_page, *args, page=number, **kwargs)

    def get_search_results(self, request: HttpRequest, queryset: Records, search_term: str) -> tuple[Records, bool]:
        """Return the records that match the complete search term. Each searched column has an index."""
        term = search_term.strip()
        return (cast(NotificationQuerySet[NotificationRecord], queryset).search(term) if term else queryset), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the record with an explanation of its state and the operations that are possible."""
        context: dict[str, Any] = {}
        record = self.get_object(request, object_id)
        if record and self.has_view_permission(request, record):
            context = {
                "subtitle": f"#{record.pk}",
                "sentences": explain_record(record),
                "operations": self.operations_for(request, record),
            }
        return super().change_view(request, object_id, form_url, (extra_context or {}) | context)
