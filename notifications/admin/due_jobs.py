"""Due jobs: what is to happen, and what has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from notifications.admin.display import STYLE, age_html, column, json_block, time_html
from notifications.models import DueJob

if TYPE_CHECKING:
    Base = admin.ModelAdmin[DueJob]
else:
    Base = admin.ModelAdmin


@admin.register(DueJob)
class DueJobAdmin(Base):
    """Look only: code schedules them, the scanner runs them."""

    list_display = ("job_key", "kind", "due", "next_age", "attempts", "problem", "done_age")
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("key__exact",)
    ordering = ("-id",)
    sortable_by = ()
    fields = (
        *("job_key", "kind", "payload_text", "due_time", "next_time", "attempts", "problem", "done_time"),
        "created_time",
    )
    readonly_fields = fields

    job_key = column(DueJob, "key")
    kind = column(DueJob, "event")
    problem = column(DueJob, "last_error")

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    def has_add_permission(self, request: HttpRequest) -> bool:
        """They come from code only."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits them."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The purge deletes them."""
        return False

    @admin.display(description=_("to run"))
    def due(self, job: DueJob) -> SafeString | str:
        """Return when it was to run, in the list."""
        return age_html(job.run_at)

    @admin.display(description=_("next run"))
    def next_age(self, job: DueJob) -> SafeString | str:
        """Return when it is tried next, in the list."""
        return age_html(job.next_run_at)

    @admin.display(description=_("done"))
    def done_age(self, job: DueJob) -> SafeString | str:
        """Return when it was published, in the list."""
        return age_html(job.done_at)

    @admin.display(description=_("to run"))
    def due_time(self, job: DueJob) -> SafeString | str:
        """Return when it was to run."""
        return time_html(job.run_at)

    @admin.display(description=_("next run"))
    def next_time(self, job: DueJob) -> SafeString | str:
        """Return when it is tried next, or when the lease of whoever has it ends."""
        return time_html(job.next_run_at)

    @admin.display(description=_("done"))
    def done_time(self, job: DueJob) -> SafeString | str:
        """Return when it was published."""
        return time_html(job.done_at)

    @admin.display(description=_("created"))
    def created_time(self, job: DueJob) -> SafeString | str:
        """Return when it was scheduled."""
        return time_html(job.created_at)

    @admin.display(description=_("payload"))
    def payload_text(self, job: DueJob) -> SafeString | str:
        """Return the event's payload."""
        return json_block(job.payload)
