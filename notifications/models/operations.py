"""Replay operations, due jobs and rejected requests."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from notifications.content.text import escape_invisible
from notifications.querysets import PrimaryManager
from notifications.states import UNFINISHED, OperationStatus


class ReplayOperation(models.Model):
    """A replay of all records that match criteria, in batches, at a rate. Never deleted: it records who and why."""

    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,  # the row is kept when its user is deleted
        null=True,
        db_index=False,
        related_name="+",
        verbose_name=_("started by"),
    )
    reason = models.CharField(_("reason"), max_length=500)
    criteria = models.JSONField(_("criteria"), help_text=_("selects the records to replay"))
    as_of = models.DateTimeField(_("as of"), help_text=_("records that change after this time are not replayed"))
    rate = models.IntegerField(_("rate"), null=True, help_text=_("maximum records per minute; empty: no limit"))
    status = models.CharField(
        _("status"), max_length=16, choices=OperationStatus.choices, default=OperationStatus.QUEUED
    )
    matched = models.IntegerField(_("matched"), help_text=_("records that matched when the operation was created"))
    done = models.IntegerField(_("replayed"), default=0)
    cursor_at = models.DateTimeField(null=True, editable=False, db_column="walked_to")
    """Sort position of the last replayed record: its time here, its id in `cursor_id`."""
    cursor_id = models.BigIntegerField(null=True, editable=False, db_column="walked_to_id")
    next_batch_at = models.DateTimeField(_("next batch"), null=True, db_default=Now())
    error = models.CharField(_("error"), max_length=191, blank=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())
    started_at = models.DateTimeField(_("started"), null=True)
    finished_at = models.DateTimeField(_("finished"), null=True)

    objects: ClassVar[models.Manager[ReplayOperation]] = PrimaryManager()

    class Meta:
        """Table, permissions, constraints and indexes."""

        db_table = "notification_replay_operations"
        verbose_name = _("replay operation")
        verbose_name_plural = _("replay operations")
        default_permissions = ()  # the permissions of records to replay and to view apply
        constraints = (
            models.CheckConstraint(condition=Q(status__in=OperationStatus.values), name="replay_status_known"),
            models.CheckConstraint(
                condition=Q(status__in=UNFINISHED, next_batch_at__isnull=False)
                | Q(~Q(status__in=UNFINISHED), next_batch_at__isnull=True),
                name="replay_scheduled_iff_unfinished",
            ),
            models.CheckConstraint(condition=Q(rate__isnull=True) | Q(rate__gte=1), name="replay_rate_positive"),
        )
        indexes = (
            models.Index(fields=("next_batch_at", "id"), name="replay_due", condition=Q(next_batch_at__isnull=False)),
        )

    def __str__(self) -> str:
        return f"#{self.pk}"


class DueJob(models.Model):
    """An event to publish at a given time. maintenance/job_scheduler.py claims and publishes it."""

    key = models.CharField(_("job key"), max_length=191, unique=True)
    event = models.CharField(_("event"), max_length=64)
    payload = models.JSONField(_("payload"))
    run_at = models.DateTimeField(_("scheduled for"))
    next_run_at = models.DateTimeField(_("next run"), null=True)
    """Time from which it may be claimed: `run_at`, the end of a backoff or of a lease; None when done."""
    lease_token = models.UUIDField(null=True, editable=False)
    attempts = models.IntegerField(_("attempts"), default=0)
    last_error = models.CharField(_("error"), max_length=191, blank=True)
    done_at = models.DateTimeField(_("done"), null=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())

    objects: ClassVar[models.Manager[DueJob]] = PrimaryManager()

    class Meta:
        """Table, permissions, constraints and indexes."""

        db_table = "notification_due_jobs"
        verbose_name = _("due job")
        verbose_name_plural = _("due jobs")
        default_permissions = ("view",)
        constraints = (
            models.CheckConstraint(
                condition=Q(done_at__isnull=True, next_run_at__isnull=False)
                | Q(done_at__isnull=False, next_run_at__isnull=True, lease_token__isnull=True),
                name="job_scheduled_iff_not_done",
            ),
        )
        indexes = (
            models.Index(fields=("next_run_at", "id"), name="job_due", condition=Q(next_run_at__isnull=False)),
            models.Index(fields=("done_at",), name="job_done", condition=Q(done_at__isnull=False)),  # for the purge
        )

    def __str__(self) -> str:
        return escape_invisible(self.key)


class RejectedRequest(models.Model):
    """A request whose payload was invalid, stored with the reasons, so that no request is lost."""

    source = models.CharField(_("source"), max_length=64)
    payload = models.TextField(_("payload"), help_text=_("payload as received"))
    errors = models.JSONField(_("reasons"))
    created_at = models.DateTimeField(_("time"), db_default=Now(), db_index=True)

    objects: ClassVar[models.Manager[RejectedRequest]] = PrimaryManager()

    class Meta:
        """Table, permissions, constraints and indexes."""

        db_table = "notification_rejected_requests"
        verbose_name = _("rejected request")
        verbose_name_plural = _("rejected requests")
        default_permissions = ("view", "delete")

    def __str__(self) -> str:
        return f"{self.source} #{self.pk}"
