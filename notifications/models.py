"""Rows: the truth about every notification. docs/design.md draws the states and says what may change them."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from notifications.content.text import escape_invisible
from notifications.querysets import NotificationQuerySet
from notifications.security.fields import SecretField
from notifications.states import (
    SCHEDULED,
    UNDELIVERED,
    UNFINISHED,
    AlertKind,
    AuthType,
    Cause,
    Measure,
    OperationStatus,
    Outcome,
    Pulse,
    Status,
    TestStatus,
    WaitReason,
)


class NotificationRecord(models.Model):
    """One notification to one user: outbox, queue, schedule and audit in one row."""

    channel = models.CharField(_("channel"), max_length=32, default="feishu")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,  # audit rows outlive users, and ids we do not know are kept
        db_index=False,  # notification_user begins with it
        related_name="+",
        verbose_name=_("user"),
    )
    trigger_id = models.CharField(_("trigger id"), max_length=191, blank=True)
    preview_id = models.CharField(_("preview id"), max_length=191, blank=True)
    trigger_type = models.CharField(_("trigger type"), max_length=64, blank=True)
    target_type = models.CharField(_("target type"), max_length=64, blank=True)
    target_id = models.BigIntegerField(_("target id"), default=0)
    dedupe_key = models.CharField(_("dedupe key"), max_length=191)
    target_url = models.CharField(_("target path"), max_length=1024, blank=True)
    summary_text = models.TextField(_("summary"), blank=True)
    fallback_text = models.TextField(_("fallback text"), blank=True)
    fallback_used = models.BooleanField(_("fallback used"), default=False)
    trace_id = models.CharField(_("trace id"), max_length=191, blank=True)

    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.PENDING)
    attempt_count = models.IntegerField(_("attempts"), default=0)
    max_attempts = models.IntegerField(_("attempts allowed"))
    round = models.IntegerField(_("round"), default=0, help_text=_("0 at first, one more for each replay"))
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, db_default=Now())
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    lease_token = models.UUIDField(null=True, editable=False)
    wait_reason = models.CharField(
        _("held up by"), max_length=16, choices=WaitReason.choices, blank=True, default="", db_default=""
    )

    last_error_code = models.CharField(_("error code"), max_length=64, blank=True)
    last_error = models.TextField(_("error"), blank=True)
    provider_message_id = models.CharField(_("message id at the provider"), max_length=191, blank=True)
    provider_request = models.JSONField(_("request sent"), null=True)
    provider_response = models.JSONField(_("response received"), null=True)
    sent_at = models.DateTimeField(_("sent"), null=True)
    created_at = models.DateTimeField(_("requested"), db_default=Now(), db_index=True)
    updated_at = models.DateTimeField(_("changed"), db_default=Now())
    replay_operation = models.ForeignKey(
        "ReplayOperation",
        on_delete=models.DO_NOTHING,  # operations are kept
        db_constraint=False,  # so the column is added without reading the table
        null=True,
        db_index=False,  # few records have one: notification_replayed
        related_name="+",
        verbose_name=_("replay operation"),
        help_text=_("the last one that replayed it"),
    )

    objects: ClassVar[NotificationQuerySet[NotificationRecord]] = NotificationQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "notification_records"
        verbose_name = _("notification")
        verbose_name_plural = _("notifications")
        default_permissions = ("view",)
        permissions = (
            ("replay_notificationrecord", _("Can replay notifications")),
            ("cancel_notificationrecord", _("Can cancel notifications")),
            ("send_now_notificationrecord", _("Can send waiting notifications now")),
        )
        constraints = (
            # dedupe_key first: the same index then also finds a key without its channel.
            models.UniqueConstraint(fields=("dedupe_key", "channel"), name="notification_dedupe"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="notification_status_known"),
            models.CheckConstraint(
                condition=Q(status__in=SCHEDULED, next_attempt_at__isnull=False)
                | Q(~Q(status__in=SCHEDULED), next_attempt_at__isnull=True),
                name="notification_scheduled_iff_waiting",
            ),
            models.CheckConstraint(
                condition=Q(status=Status.SENDING, lease_token__isnull=False)
                | Q(~Q(status=Status.SENDING), lease_token__isnull=True),
                name="notification_leased_iff_sending",
            ),
        )
        indexes = (
            # Serves the claim (claim.py) and nothing else; finished rows are not in it, so it stays small.
            models.Index(
                fields=("next_attempt_at", "id"), name="notification_due", condition=Q(next_attempt_at__isnull=False)
            ),
            models.Index(  # finds what may go when an endpoint is well again
                fields=("user", "channel", "id"),
                name="notification_held_up",
                condition=Q(wait_reason__in=[WaitReason.CHANNEL_PAUSED, WaitReason.ENDPOINT_FAILING]),
            ),
            # Serves a user's own notifications, newest first (web_api/inbox.py).
            models.Index(fields=("user", "id"), name="notification_user"),
            models.Index(fields=("trace_id",), name="notification_trace", condition=~Q(trace_id="")),
            models.Index(fields=("preview_id",), name="notification_preview", condition=~Q(preview_id="")),
            # Serves overview and alerts; a delivery that succeeds never touches it.
            models.Index(fields=("updated_at", "id"), name="notification_dead", condition=Q(status=Status.DEAD)),
            # Serves what looks for undelivered records, replays above all. What is delivered never enters it; the
            # included columns let a count do without the table.
            models.Index(
                fields=("updated_at", "id"),
                include=("status", "last_error_code", "channel"),
                name="notification_undelivered",
                condition=Q(status__in=UNDELIVERED),
            ),
            models.Index(
                fields=("replay_operation", "id"),
                name="notification_replayed",
                condition=Q(replay_operation__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return escape_invisible(f"{self.channel}|{self.dedupe_key}")


class DeliveryAttempt(models.Model):
    """One try to send one record. Only ever inserted, except that a late answer replaces a "lost" row."""

    record = models.ForeignKey(
        NotificationRecord,
        on_delete=models.CASCADE,
        related_name="attempts",
        db_index=False,  # the unique constraint's index begins with it
        verbose_name=_("notification"),
    )
    round = models.IntegerField(_("round"), default=0)
    number = models.IntegerField(_("number"))
    cause = models.CharField(_("cause"), max_length=16, choices=Cause.choices)
    started_at = models.DateTimeField(_("started"))
    duration_ms = models.IntegerField(_("duration (ms)"), null=True)
    outcome = models.CharField(_("outcome"), max_length=16, choices=Outcome.choices)
    error_code = models.CharField(_("error code"), max_length=64, blank=True)
    error = models.TextField(_("error"), blank=True)
    http_status = models.IntegerField(_("HTTP status"), null=True)
    response_excerpt = models.TextField(_("response"), blank=True)
    worker = models.CharField(_("worker"), max_length=191, blank=True)

    class Meta:
        db_table = "notification_delivery_attempts"
        verbose_name = _("delivery attempt")
        verbose_name_plural = _("delivery attempts")
        default_permissions = ("view",)
        ordering = ("record_id", "round", "number")
        constraints = (
            models.UniqueConstraint(fields=("record", "round", "number"), name="attempt_number"),
            models.CheckConstraint(condition=Q(outcome__in=Outcome.values), name="attempt_outcome_known"),
            models.CheckConstraint(condition=Q(cause__in=Cause.values), name="attempt_cause_known"),
        )

    def __str__(self) -> str:
        return f"{self.round}.{self.number}"


class UserNotificationChannel(models.Model):
    """Where and how one user wants to be told on one channel."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notification_channels", verbose_name=_("user")
    )
    channel = models.CharField(_("channel"), max_length=32, default="feishu")
    enabled = models.BooleanField(_("switched on"), default=True)
    webhook_url = SecretField(_("webhook address"), blank=True, default="")
    auth_type = models.CharField(_("authentication"), max_length=16, choices=AuthType.choices, default=AuthType.NONE)
    bearer_token = SecretField(_("bearer token"), blank=True, default="")
    paused_at = models.DateTimeField(_("paused"), null=True, blank=True)
    pause_reason = models.CharField(_("reason of the pause"), max_length=191, blank=True)
    owner_told_at = models.DateTimeField(_("owner told of the pause"), null=True, blank=True, editable=False)
    """The `paused_at` that the owner was told of."""
    release_at = models.DateTimeField(_("next release"), null=True, blank=True, editable=False)
    """When the next of the records that wait may be let go; none while nothing is being let go."""
    failures = models.IntegerField(_("failures in a row"), default=0, db_default=0, editable=False)
    probe_at = models.DateTimeField(_("next probe"), null=True, blank=True, editable=False)
    """Set while the endpoint keeps failing and only one record per interval is sent."""
    last_test_status = models.CharField(
        _("last test"), max_length=16, choices=TestStatus.choices, blank=True, default=TestStatus.NEVER
    )
    last_test_error = models.CharField(_("error of the last test"), max_length=191, blank=True)
    last_test_at = models.DateTimeField(_("time of the last test"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())
    updated_at = models.DateTimeField(_("changed"), auto_now=True)

    class Meta:
        db_table = "user_notification_channels"
        verbose_name = _("user's channel")
        verbose_name_plural = _("users' channels")
        constraints = (models.UniqueConstraint(fields=("user", "channel"), name="one_channel_per_user"),)
        indexes = (
            models.Index(
                fields=("id",),
                name="channel_to_tend",
                condition=Q(release_at__isnull=False) | Q(probe_at__isnull=False),
            ),
            # Few are paused among many: metrics and alerts look for them every minute.
            models.Index(fields=("paused_at",), name="channel_paused", condition=Q(paused_at__isnull=False)),
        )

    def __str__(self) -> str:
        return f"{self.channel} / {self.user_id}"


class Tally(models.Model):
    """How often one thing happened in one hour; tallies.py says how it is written and read."""

    pk = models.CompositePrimaryKey(
        "measure", "hour", "channel", "outcome", "error_code", "attempts", "bucket", "shard"
    )
    hour = models.DateTimeField()
    shard = models.SmallIntegerField()
    channel = models.CharField(max_length=32)
    measure = models.CharField(max_length=32, choices=Measure.choices)
    outcome = models.CharField(max_length=16, blank=True)
    error_code = models.CharField(max_length=64, blank=True)
    attempts = models.SmallIntegerField()
    bucket = models.SmallIntegerField()
    count = models.BigIntegerField()
    seconds = models.FloatField()

    class Meta:
        db_table = "notification_tallies"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.measure} {self.hour:%Y-%m-%d %H}"


class RejectedRequest(models.Model):
    """A request refused at the door, kept with the reason so that nothing vanishes."""

    source = models.CharField(_("came by"), max_length=64)
    payload = models.TextField(_("payload"), help_text=_("JSON, as it came"))
    errors = models.JSONField(_("what is wrong"))
    created_at = models.DateTimeField(_("time"), db_default=Now(), db_index=True)

    class Meta:
        db_table = "notification_rejected_requests"
        verbose_name = _("rejected request")
        verbose_name_plural = _("rejected requests")
        default_permissions = ("view", "delete")

    def __str__(self) -> str:
        return f"{self.source} #{self.pk}"


class Heartbeat(models.Model):
    """When something that should be running was last heard of, by PostgreSQL's clock. See heartbeats.py."""

    name = models.CharField(_("name"), max_length=191, primary_key=True)
    kind = models.CharField(_("kind"), max_length=16, choices=Pulse.choices)
    seen_at = models.DateTimeField(_("last heard of"), db_default=Now())

    class Meta:
        db_table = "notification_heartbeats"
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """What one sink was, or is to be, told about one cause. alerts.py says how the times move."""

    cause = models.CharField(_("cause"), max_length=191)
    sink = models.CharField(_("told by"), max_length=32)
    kind = models.CharField(_("kind"), max_length=16, choices=AlertKind.choices)
    facts = models.JSONField(_("facts"), default=dict)
    count = models.IntegerField(_("count"))
    first_seen = models.DateTimeField(_("first seen"))
    last_seen = models.DateTimeField(_("last seen"))
    telling_until = models.DateTimeField(null=True)
    told_at = models.DateTimeField(_("told"), null=True)
    cleared_at = models.DateTimeField(_("over since"), null=True)
    all_clear_at = models.DateTimeField(_("all-clear given"), null=True)

    class Meta:
        db_table = "notification_alerts"
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("cause", "sink"), name="alert_once"),)

    def __str__(self) -> str:
        return f"{self.cause} / {self.sink}"


class ReplayOperation(models.Model):
    """An order to replay all records that match, in batches, at a rate. Nothing deletes it: it says who and why."""

    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,  # it outlives users
        null=True,
        db_index=False,
        related_name="+",
        verbose_name=_("ordered by"),
    )
    reason = models.CharField(_("reason"), max_length=500)
    criteria = models.JSONField(_("criteria"), help_text=_("which records; see criteria.py"))
    as_of = models.DateTimeField(_("as of"), help_text=_("records that changed later are left alone"))
    rate = models.IntegerField(_("rate"), null=True, help_text=_("records per minute at most; none: no limit"))
    status = models.CharField(
        _("status"), max_length=16, choices=OperationStatus.choices, default=OperationStatus.QUEUED
    )
    matched = models.IntegerField(_("matched"), help_text=_("records there were to replay when it was created"))
    done = models.IntegerField(_("replayed"), default=0)
    walked_to = models.DateTimeField(null=True, editable=False)
    walked_to_id = models.BigIntegerField(null=True, editable=False)
    next_batch_at = models.DateTimeField(_("next batch"), null=True, db_default=Now())
    error = models.CharField(_("error"), max_length=191, blank=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())
    started_at = models.DateTimeField(_("started"), null=True)
    finished_at = models.DateTimeField(_("finished"), null=True)

    class Meta:
        db_table = "notification_replay_operations"
        verbose_name = _("replay operation")
        verbose_name_plural = _("replay operations")
        default_permissions = ()  # those who may replay order one, those who may see records see it
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
    """An event that is to happen at a time. jobs.py claims and publishes it."""

    key = models.CharField(_("job key"), max_length=191, unique=True)
    event = models.CharField(_("event"), max_length=64)
    payload = models.JSONField(_("payload"))
    run_at = models.DateTimeField(_("to run"))
    next_run_at = models.DateTimeField(_("next run"), null=True)
    """As a record's `next_attempt_at`: its time, the end of a backoff or of a lease; none when done."""
    lease_token = models.UUIDField(null=True, editable=False)
    attempts = models.IntegerField(_("attempts"), default=0)
    last_error = models.CharField(_("error"), max_length=191, blank=True)
    done_at = models.DateTimeField(_("done"), null=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())

    class Meta:
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
