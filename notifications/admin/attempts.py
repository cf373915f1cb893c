"""The table of delivery attempts on a record's page."""

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
"""Characters shown of an attempt's error and of its response."""


class AttemptInline(Inline):
    """Read-only table of all attempts of one record, oldest first."""

    model = DeliveryAttempt
    template = "admin/notifications/notificationrecord/attempts.html"
    fields = readonly_fields = (
        *("round", "number", "cause", "started", "duration", "outcome_badge", "code", "error_text", "http_status"),
        *("response_text", "worker_name"),
    )

    code = column(DeliveryAttempt, "error_code")
    worker_name = column(DeliveryAttempt, "worker")

    @admin.display(description=_("started"))
    def started(self, attempt: DeliveryAttempt) -> str:
        """Return the start time to the second."""
        return format_time(attempt.started_at)

    @admin.display(description=_("duration"))
    def duration(self, attempt: DeliveryAttempt) -> str:
        """Return the duration in milliseconds. The duration of a lost attempt is unknown."""
        return EMPTY_VALUE if attempt.duration_ms is None else gettext("%(count)d ms") % {"count": attempt.duration_ms}

    @admin.display(description=_("outcome"))
    def outcome_badge(self, attempt: DeliveryAttempt) -> SafeString:
        """Return the outcome as a coloured badge."""
        return badge(attempt.outcome, attempt.get_outcome_display())

    @admin.display(description=_("error"))
    def error_text(self, attempt: DeliveryAttempt) -> SafeString | str:
        """Return the error message."""
        return text_block(attempt.error, MAX_TEXT_LENGTH)

    @admin.display(description=_("response"))
    def response_text(self, attempt: DeliveryAttempt) -> str:
        """Return the stored beginning of the endpoint's response."""
        return text_block(attempt.response_excerpt, MAX_TEXT_LENGTH)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may view the record. The attempts are part of it."""
        return request.user.has_perm("notifications.view_notificationrecord")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: only the delivery engine adds attempts."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: attempts are never edited."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: attempts are deleted together with their record."""
        return False
