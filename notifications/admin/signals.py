"""Signals that have not reached all of their receivers: those that wait, and those that were given up."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from notifications.admin.base import BaseAdmin
from notifications.admin.display import STYLE, age_html, column, json_block, time_html
from notifications.models import NotificationEvent


@admin.register(NotificationEvent)
class NotificationEventAdmin(BaseAdmin):
    """Signals can be viewed, and deleted if nobody needs them. The relay deletes those that were taken."""

    list_display = ("signal_name", "record_number", "age", "attempts", "next_age", "error_text")
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("record_id__exact",)
    ordering = ("id",)
    sortable_by = ()
    fields = ("signal_name", "record_number", "time", "arguments", "attempts", "next_time", "error_text", "taken_by")
    readonly_fields = fields

    signal_name = column(NotificationEvent, "name")
    error_text = column(NotificationEvent, "error")

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: only the engine stores signals."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: signals are never edited."""
        return False

    @admin.display(description=_("notification"))
    def record_number(self, event: NotificationEvent) -> int:
        """Return the id of the notification, which may have been purged."""
        return event.record_id

    @admin.display(description=_("time"))
    def age(self, event: NotificationEvent) -> SafeString | str:
        """Return when the notification changed, for the list."""
        return age_html(event.occurred_at)

    @admin.display(description=_("time"))
    def time(self, event: NotificationEvent) -> SafeString | str:
        """Return when the notification changed."""
        return time_html(event.occurred_at)

    @admin.display(description=_("next attempt"))
    def next_age(self, event: NotificationEvent) -> SafeString | str:
        """Return the time of the next attempt, for the list."""
        return age_html(event.next_attempt_at)

    @admin.display(description=_("next attempt"))
    def next_time(self, event: NotificationEvent) -> SafeString | str:
        """Return the time of the next attempt; none if it was given up."""
        return time_html(event.next_attempt_at)

    @admin.display(description=_("arguments"))
    def arguments(self, event: NotificationEvent) -> SafeString | str:
        """Return the arguments of the signal."""
        return json_block(event.payload)

    @admin.display(description=_("taken by"))
    def taken_by(self, event: NotificationEvent) -> SafeString | str:
        """Return the receivers that have taken it, while another one fails."""
        return json_block(event.received_by)
