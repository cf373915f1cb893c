"""Rejected requests: the payload received and the reasons for the rejection."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.base import BaseAdmin
from notifications.admin.display import STYLE, age_html, isolated, json_or_text_block, time_html
from notifications.admin.filters import LastDayFilter
from notifications.models import RejectedRequest

MAX_ERRORS = 50
"""Errors shown per request. `ingest` stores fewer."""
MAX_TEXT_LENGTH = 200
"""Characters shown of a field name and of a reason."""


@admin.register(RejectedRequest)
class RejectedRequestAdmin(BaseAdmin):
    """Rejected requests can be viewed, and deleted after the sender is fixed."""

    list_display = ("age", "source", "invalid_fields")
    list_per_page = 50
    show_full_result_count = False
    list_filter = (LastDayFilter,)
    show_facets = admin.ShowFacets.NEVER
    date_hierarchy = "created_at"
    ordering = ("-created_at", "-id")
    sortable_by = ("age",)
    fields = ("time", "source", "reasons", "payload_text")
    readonly_fields = fields

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: only ingest stores rejected requests."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: a received payload is never edited."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RejectedRequest]:
        """Return the rows without their payloads, which can be long. The page of one request loads its payload."""
        return super().get_queryset(request).defer("payload")

    @admin.display(description=_("time"), ordering="created_at")
    def age(self, rejected: RejectedRequest) -> SafeString | str:
        """Return the age of the request."""
        return age_html(rejected.created_at)

    @admin.display(description=_("time"))
    def time(self, rejected: RejectedRequest) -> SafeString | str:
        """Return the time at which the request was received."""
        return time_html(rejected.created_at)

    @admin.display(description=_("invalid fields"))
    def invalid_fields(self, rejected: RejectedRequest) -> SafeString:
        """Return the names of the invalid fields."""
        return isolated(", ".join(name for name, _reason in _errors(rejected)))

    @admin.display(description=_("reasons"))
    def reasons(self, rejected: RejectedRequest) -> SafeString:
        """Return each invalid field with its reason."""
        # Reasons are stored in the language of the process that rejected the request, English in a worker.
        # Most of them are complete texts of this app, so they can be translated here.
        rows = [(isolated(name), isolated(gettext(reason))) for name, reason in _errors(rejected)]
        return format_html_join("", '<p class="n-reason"><strong>{}</strong> {}</p>', rows)

    @admin.display(description=_("payload"))
    def payload_text(self, rejected: RejectedRequest) -> SafeString | str:
        """Return the beginning of the payload, indented if it is JSON."""
        return json_or_text_block(rejected.payload)


def _errors(rejected: RejectedRequest) -> list[tuple[str, str]]:
    # The column may hold JSON of another shape; such entries are ignored.
    errors = rejected.errors[:MAX_ERRORS] if isinstance(rejected.errors, list) else []
    return [
        (str(e.get("field", ""))[:MAX_TEXT_LENGTH], str(e.get("reason", ""))[:MAX_TEXT_LENGTH])
        for e in errors
        if isinstance(e, dict)
    ]
