"""Due jobs: events that application code scheduled for a time."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from notifications.admin.base import BaseAdmin
from notifications.admin.display import STYLE, age_html, column, json_block, time_html
from notifications.models import DueJob


@admin.register(DueJob)
class DueJobAdmin(BaseAdmin):
    """Read-only list of due jobs. Application code schedules them and `publish_due_jobs` runs them."""

    list_display = ("job_key", "kind", "due", "next_age", "attempts", "error_text", "done_age")
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("key__exact",)
    ordering = ("-id",)
    sortable_by = ()
    fields = (
        *("job_key", "kind", "payload_text", "due_time", "next_time", "attempts", "error_text", "done_time"),
        "created_time",
    )
    readonly_fields = fields

    job_key = column(DueJob, "key")
    kind = column(DueJob, "event")
    error_text = column(DueJob, "last_error")

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False: only application code schedules jobs."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: jobs are never edited here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: the pruner deletes jobs."""
        return False

    @admin.display(description=_("scheduled for"))
    def due(self, job: DueJob) -> SafeString | str:
        """Return the scheduled time, for the list."""
        return age_html(job.run_at)

    @admin.display(description=_("next run"))
    def next_age(self, job: DueJob) -> SafeString | str:
        """Return the time of the next run, for the list."""
        return age_html(job.next_run_at)

    @admin.display(description=_("done"))
    def done_age(self, job: DueJob) -> SafeString | str:
        """Return the time of publication, for the list."""
        return age_html(job.done_at)

    @admin.display(description=_("scheduled for"))
    def due_time(self, job: DueJob) -> SafeString | str:
        """Return the scheduled time."""
        return time_html(job.run_at)

    @admin.display(description=_("next run"))
    def next_time(self, job: DueJob) -> SafeString | str:
        """Return the time of the next run, or the end of the lease of the process that runs the job."""
        return time_html(job.next_run_at)

    @admin.display(description=_("done"))
    def done_time(self, job: DueJob) -> SafeString | str:
        """Return the time of publication."""
        return time_html(job.done_at)

    @admin.display(description=_("created"))
    def created_time(self, job: DueJob) -> SafeString | str:
        """Return the time at which the job was created."""
        return time_html(job.created_at)

    @admin.display(description=_("payload"))
    def payload_text(self, job: DueJob) -> SafeString | str:
        """Return the payload of the event."""
        return json_block(job.payload)
