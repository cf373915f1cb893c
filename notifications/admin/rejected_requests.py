"""Requests refused at the door: what came, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.current_states import LastDayFilter
from notifications.admin.display import STYLE, age_html, isolated, json_or_text_block, time_html
from notifications.models import RejectedRequest

if TYPE_CHECKING:
    Base = admin.ModelAdmin[RejectedRequest]
else:
    Base = admin.ModelAdmin

MAX_ERRORS, MAX_TEXT_LENGTH = 50, 200
"""Errors that are shown, and characters of each: more than intake ever names."""


@admin.register(RejectedRequest)
class RejectedRequestAdmin(Base):
    """Look, and throw away once the sender is mended."""

    list_display = ("age", "source", "fields_wrong")
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
        """They come from requests only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits what came."""
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RejectedRequest]:
        """Return the rows without their payloads, which can be long; the page of one reads its own."""
        return super().get_queryset(request).defer("payload")

    @admin.display(description=_("time"), ordering="created_at")
    def age(self, rejected: RejectedRequest) -> SafeString | str:
        """Return how long ago it came."""
        return age_html(rejected.created_at)

    @admin.display(description=_("time"))
    def time(self, rejected: RejectedRequest) -> SafeString | str:
        """Return when it came."""
        return time_html(rejected.created_at)

    @admin.display(description=_("fields that are wrong"))
    def fields_wrong(self, rejected: RejectedRequest) -> SafeString:
        """Return the names of the fields."""
        return isolated(", ".join(name for name, _reason in _errors(rejected)))

    @admin.display(description=_("what is wrong"))
    def reasons(self, rejected: RejectedRequest) -> SafeString:
        """Return every field with its reason."""
        # Stored in the language of whoever refused it, English in a worker; most reasons are whole texts of ours.
        rows = [(isolated(name), isolated(gettext(reason))) for name, reason in _errors(rejected)]
        return format_html_join("", '<p class="n-reason"><strong>{}</strong> {}</p>', rows)

    @admin.display(description=_("payload"))
    def payload_text(self, rejected: RejectedRequest) -> SafeString | str:
        """Return the beginning of what came, as JSON where it is that."""
        return json_or_text_block(rejected.payload)


def _errors(rejected: RejectedRequest) -> list[tuple[str, str]]:
    """Return (field, reason) pairs of whatever is in the column."""
    errors = rejected.errors[:MAX_ERRORS] if isinstance(rejected.errors, list) else []
    return [
        (str(e.get("field", ""))[:MAX_TEXT_LENGTH], str(e.get("reason", ""))[:MAX_TEXT_LENGTH])
        for e in errors
        if isinstance(e, dict)
    ]
