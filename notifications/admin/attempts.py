"""The attempts of one record, as a table below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.display import EMPTY_VALUE, badge, column, format_time, text_block
from notifications.models import DeliveryAttempt, NotificationRecord

if TYPE_CHECKING:
    Inline = admin.TabularInline[DeliveryAttempt, NotificationRecord]
else:
    Inline = admin.TabularInline

MAX_TEXT_LENGTH = 2000
"""Characters of an error or answer that are shown of each attempt."""


class AttemptInline(Inline):
    """Every try to send one record, in the order they were made."""

    model = DeliveryAttempt
    template = "admin/notifications/notificationrecord/attempts.html"
    fields = readonly_fields = (
        *("round", "number", "cause", "started", "duration", "verdict", "code", "problem", "http_status"),
        *("excerpt", "origin"),
    )

    code = column(DeliveryAttempt, "error_code")
    origin = column(DeliveryAttempt, "worker")

    @admin.display(description=_("started"))
    def started(self, attempt: DeliveryAttempt) -> str:
        """Return when it began, to the second."""
        return format_time(attempt.started_at)

    @admin.display(description=_("duration"))
    def duration(self, attempt: DeliveryAttempt) -> str:
        """Return how long it took; nobody knows for a lost one."""
        return EMPTY_VALUE if attempt.duration_ms is None else gettext("%(count)d ms") % {"count": attempt.duration_ms}

    @admin.display(description=_("outcome"))
    def verdict(self, attempt: DeliveryAttempt) -> SafeString:
        """Return what it came to."""
        return badge(attempt.outcome, attempt.get_outcome_display())

    @admin.display(description=_("error"))
    def problem(self, attempt: DeliveryAttempt) -> SafeString | str:
        """Return what went wrong."""
        return text_block(attempt.error, MAX_TEXT_LENGTH)

    @admin.display(description=_("response"))
    def excerpt(self, attempt: DeliveryAttempt) -> str:
        """Return the beginning of the answer."""
        return text_block(attempt.response_excerpt, MAX_TEXT_LENGTH)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Show them to whoever may see the record: they are part of it."""
        return request.user.has_perm("notifications.view_notificationrecord")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody adds attempts by hand."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody changes them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody deletes them."""
        return False
