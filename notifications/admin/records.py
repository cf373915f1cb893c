"""The list of deliveries, and the page of one. Nobody edits them: they are the record of what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy as _

from notifications.admin.attempts import AttemptInline
from notifications.admin.current_states import CURRENT_STATES, CurrentStateFilter, PreviewFilter, TraceFilter
from notifications.admin.display import EMPTY_VALUE, STYLE
from notifications.admin.filters import AdminQuerySet, ChannelFilter, ErrorCodeFilter
from notifications.admin.record_actions import RecordActionsAdmin
from notifications.admin.record_columns import RecordColumns
from notifications.admin.record_explanations import explain_record
from notifications.models import NotificationRecord

if TYPE_CHECKING:
    Records = QuerySet[NotificationRecord]

TARGET_FIELDS = ("kind_of_trigger", "kind_of_target", "target_id")
RECORD_COLUMNS = tuple(name for name in vars(RecordColumns) if not name.startswith("_"))
"""Everything RecordColumns shows."""


@admin.register(NotificationRecord)
class NotificationRecordAdmin(RecordColumns, RecordActionsAdmin):
    """Deliveries: look, search, replay, cancel."""

    list_display = ("state", "key", "owner", "code", "attempts", "next_attempt", "requested", "channel")
    list_display_links = ("state", "key")
    list_filter = (
        CurrentStateFilter,
        "status",
        ErrorCodeFilter,
        ChannelFilter,
        TraceFilter,
        PreviewFilter,
        "created_at",
    )
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # counts each choice by going through the whole table
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    sortable_by = ("requested",)  # the one column with an index to sort by
    search_fields = ("dedupe_key",)  # shows the box; get_search_results says what it finds
    search_help_text = _("The whole dedupe key, trace id, user id, user name or record number.")
    inlines = (AttemptInline,)
    empty_value_display = EMPTY_VALUE
    fieldsets = (
        (_("State"), {"fields": ("state", "attempts", "round", "next_time", "code", "error")}),
        (_("Message"), {"fields": ("owner", "channel", "endpoint", "message", "path")}),
        (
            _("Request and response"),
            {"fields": ("request_json", "response_json", "message_id", "summary", "fallback", "fallback_used")},
        ),
        (_("Identifiers"), {"fields": ("id", "key", "trace", "trigger", "preview", *TARGET_FIELDS)}),
        (_("Times"), {"fields": ("requested_time", "changed_time", "sent_time")}),
    )
    readonly_fields = ("id", *RECORD_COLUMNS)

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Records come from requests only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits what happened."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nor does anybody delete it here."""
        return False

    def get_queryset(self, request: HttpRequest) -> Records:
        """Return records with their users: one query for all, and no join, which would hide those of missing users."""
        return AdminQuerySet(self.model).order_by(*self.get_ordering(request)).prefetch_related("user")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Leave out the user's channel where it may not be looked at."""
        if request.user.has_perm("notifications.view_usernotificationchannel"):
            return self.fieldsets
        return [
            (title, {"fields": [name for name in options["fields"] if name != "endpoint"]})
            for title, options in self.fieldsets
        ]

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Return the newest first, or the order of the index that finds what was asked for."""
        situation = CURRENT_STATES.get(request.GET.get("now", ""))
        return situation.order if situation else self.ordering

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Return the list, without the days of a situation: to find its first, PostgreSQL reads all that is older."""
        changelist = super().get_changelist_instance(request)
        if request.GET.get("now", "") in CURRENT_STATES:
            changelist.date_hierarchy = None
        return changelist

    def get_search_results(self, request: HttpRequest, queryset: Records, search_term: str) -> tuple[Records, bool]:
        """Find by whole values only, each with an index, however many records there are."""
        term = search_term.strip()
        return (cast(AdminQuerySet, queryset).found_by(term) if term else queryset), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Add what the state means and what may be done about it."""
        more: dict[str, Any] = {}
        record = self.get_object(request, object_id)
        if record and self.has_view_permission(request, record):
            more = {
                "subtitle": f"#{record.pk}",
                "sentences": explain_record(record),
                "operations": self.operations_for(request, record),
            }
        return super().change_view(request, object_id, form_url, (extra_context or {}) | more)
