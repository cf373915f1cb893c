"""Notifications and their delivery attempts. docs/design.md has the states and the transitions between them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import ExpressionWrapper, Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from notifications.content.text import escape_invisible
from notifications.querysets import LISTED, NotificationQuerySet, PrimaryManager
from notifications.states import SCHEDULED, UNDELIVERED, Cause, HoldReason, Outcome, Priority, Status


class NotificationRecord(models.Model):
    """One message to one recipient: outbox, queue, schedule and audit in one row.

    The recipient is a user, or an endpoint, or both. A record without an endpoint goes to the user's endpoint without
    a label on its channel, as it is when the message is sent. The event of docs/events.md makes only such records.
    """

    channel = models.CharField(_("channel"), max_length=32, default="feishu")
    user: models.ForeignKey[Any, Any] = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.DO_NOTHING,
        db_constraint=False,  # a row is kept when its user is deleted, and a request for an unknown user id is stored
        db_index=False,  # the index notification_user begins with this column
        related_name="+",
        verbose_name=_("user"),
        null=True,  # an endpoint may belong to nobody
    )
    endpoint = models.ForeignKey(
        "UserNotificationChannel",
        on_delete=models.DO_NOTHING,  # a row is kept when its endpoint is deleted
        db_constraint=False,
        db_index=False,  # few queries begin with it; notification_held_at_endpoint serves them
        null=True,
        related_name="+",
        verbose_name=_("endpoint"),
    )
    message_uid = models.UUIDField(null=True, editable=False)
    """Identifies the message. The id does not: after a failover PostgreSQL may use the id of a lost row again.

    The insert sets it to a random value. Records of earlier versions have none.
    """
    trigger_id = models.CharField(_("trigger id"), max_length=191, blank=True)
    preview_id = models.CharField(_("preview id"), max_length=191, blank=True)
    trigger_type = models.CharField(_("trigger type"), max_length=64, blank=True)
    target_type = models.CharField(_("target type"), max_length=64, blank=True)
    target_id = models.BigIntegerField(_("target id"), default=0)
    dedupe_key = models.CharField(_("dedupe key"), max_length=191)
    request_key = models.CharField(_("key"), max_length=191, blank=True, default="", db_default="")
    """The key of the caller of `notify`, the same for all recipients of the message. An event of docs/events.md has
    none."""
    order_key = models.CharField(_("order key"), max_length=191, blank=True, default="", db_default="")
    """Of the records of a channel with the same key at most one is in flight, the first (`ordering/key_order.py`)."""
    kind = models.CharField(_("kind"), max_length=64, blank=True, default="", db_default="")
    """Names the templates that the texts were rendered from."""
    title = models.CharField(_("title"), max_length=255, blank=True, default="", db_default="")
    content = models.JSONField(_("content"), null=True, editable=False)
    """The other parts of a message of `notify` (`content.message.MessageContent`). None for an event of docs/events.md,
    whose text is built by the Go service's rules."""
    target_url = models.CharField(_("link"), max_length=1024, blank=True)
    summary_text = models.TextField(_("summary"), blank=True)
    fallback_text = models.TextField(_("fallback text"), blank=True)
    fallback_used = models.BooleanField(_("fallback used"), default=False)
    replaced_texts = models.JSONField(_("replaced texts"), null=True, editable=False)
    """What the caller gave, where another text was stored: {field: {"reason": ..., "text": ...}}. See TextReplaced."""
    trace_id = models.CharField(_("trace id"), max_length=191, blank=True)
    priority = models.SmallIntegerField(
        _("priority"), choices=Priority.choices, default=Priority.NORMAL, db_default=Priority.NORMAL
    )

    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.PENDING)
    attempt_count = models.IntegerField(_("attempts"), default=0)
    max_attempts = models.IntegerField(_("attempts allowed"))
    round = models.IntegerField(_("round"), default=0, help_text=_("0 for the first send, plus 1 for each replay"))
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, db_default=Now())
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    lease_token = models.UUIDField(null=True, editable=False)
    hold_reason = models.CharField(
        _("held because"),
        max_length=16,
        choices=HoldReason.choices,
        blank=True,
        default="",
        db_default="",
        db_column="wait_reason",
    )

    last_error_code = models.CharField(_("error code"), max_length=64, blank=True)
    last_error = models.TextField(_("error"), blank=True)
    provider_message_id = models.CharField(_("message id at the provider"), max_length=191, blank=True)
    provider_request = models.JSONField(_("request sent"), null=True)
    provider_response = models.JSONField(_("response received"), null=True)
    sent_at = models.DateTimeField(_("delivered at"), null=True)
    created_at = models.DateTimeField(_("requested"), db_default=Now(), db_index=True)
    updated_at = models.DateTimeField(_("changed"), db_default=Now())
    replay_operation = models.ForeignKey(
        "ReplayOperation",
        on_delete=models.DO_NOTHING,  # operations are kept
        db_constraint=False,  # so that the migration does not read the whole table
        null=True,
        db_index=False,  # few records have one; the partial index notification_replayed has those
        related_name="+",
        verbose_name=_("replay operation"),
        help_text=_("the last operation that replayed this notification"),
    )

    objects: ClassVar[NotificationQuerySet[NotificationRecord]] = PrimaryManager.from_queryset(NotificationQuerySet)()  # type: ignore[assignment]

    class Meta:
        """Table, permissions, constraints and indexes."""

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
            # dedupe_key comes first, so that this index also serves a search by key alone.
            models.UniqueConstraint(fields=("dedupe_key", "channel"), name="notification_dedupe"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="notification_status_known"),
            # The claim reads the priorities that it knows. A record with another one would wait for ever.
            models.CheckConstraint(condition=Q(priority__in=Priority.values), name="notification_priority_known"),
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
            # At most one record of an order key is in flight. A claim that breaks this fails (ordering/key_order.py).
            models.UniqueConstraint(
                fields=("channel", "order_key"),
                name="notification_order_in_flight",
                condition=Q(status=Status.SENDING) & ~Q(order_key=""),
            ),
        )
        indexes = (
            # Serves the claim (delivery/claim.py). It has no final rows, so it stays small.
            models.Index(
                fields=("channel", "priority", "next_attempt_at", "id"),
                name="notification_due_by_priority",
                condition=Q(next_attempt_at__isnull=False),
            ),
            # Serves overview and alerts, which look at all channels together.
            models.Index(
                fields=("next_attempt_at", "id"), name="notification_due", condition=Q(next_attempt_at__isnull=False)
            ),
            models.Index(  # serves the release of held records when their endpoint has recovered
                fields=("user", "channel", "id"),
                name="notification_held_up",
                condition=Q(hold_reason__in=[HoldReason.CHANNEL_PAUSED, HoldReason.ENDPOINT_FAILING]),
            ),
            models.Index(
                fields=("endpoint", "id"),
                name="notification_held_at_endpoint",
                condition=Q(endpoint__isnull=False)
                & Q(hold_reason__in=[HoldReason.CHANNEL_PAUSED, HoldReason.ENDPOINT_FAILING]),
            ),
            # Serves the status of a message, and its cancellation for all recipients.
            models.Index(fields=("request_key", "id"), name="notification_request_key", condition=~Q(request_key="")),
            # The next two serve the order of the records with an order key (ordering/key_order.py).
            models.Index(
                "channel",
                "order_key",
                ExpressionWrapper(Q(round=0), output_field=models.BooleanField()),
                "id",
                name="notification_order",
                condition=Q(next_attempt_at__isnull=False) & ~Q(order_key=""),
            ),
            models.Index(
                fields=("channel", "order_key", "id"),
                name="notification_order_dead",
                condition=Q(status=Status.DEAD) & ~Q(order_key=""),
            ),
            # Serves a user's own notifications, newest first (web_api/notification_list.py).
            models.Index(fields=("user", "id"), name="notification_user"),
            models.Index(fields=("trace_id",), name="notification_trace", condition=~Q(trace_id="")),
            models.Index(fields=("preview_id",), name="notification_preview", condition=~Q(preview_id="")),
            # Serves overview and alerts. A successful delivery does not write to it.
            models.Index(fields=("updated_at", "id"), name="notification_dead", condition=Q(status=Status.DEAD)),
            # Serves queries for undelivered records, above all replays. A successful delivery does not write to it.
            # The included columns allow to count without reading the table.
            models.Index(
                fields=("updated_at", "id"),
                include=("status", "last_error_code", "channel"),
                name="notification_undelivered",
                condition=Q(status__in=UNDELIVERED),
            ),
            # The next three serve filters of the admin's list, newest first (admin/filters.py). A successful delivery
            # by Feishu writes to none of them. Waiting records are in notification_due; nearly all others are sent.
            models.Index(
                fields=("status", "created_at", "id"),
                name="notification_by_status",
                condition=Q(status__in=UNDELIVERED) & LISTED,
            ),
            models.Index(
                fields=("last_error_code", "created_at", "id"),
                name="notification_by_error_code",
                condition=~Q(last_error_code="") & LISTED,
            ),
            models.Index(
                fields=("channel", "created_at", "id"),
                name="notification_by_channel",
                condition=~Q(channel="feishu") & LISTED,
            ),
            models.Index(
                fields=("priority", "created_at", "id"),
                name="notification_by_priority",
                condition=~Q(priority=Priority.NORMAL) & LISTED,
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
    """One attempt to send one record.

    Rows are never changed, with one exception: a late result replaces a "lost" row, and the row's error says so.
    """

    record = models.ForeignKey(
        NotificationRecord,
        on_delete=models.CASCADE,
        related_name="attempts",
        db_index=False,  # the index of the unique constraint begins with this column
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

    objects: ClassVar[models.Manager[DeliveryAttempt]] = PrimaryManager()

    class Meta:
        """Table, permissions, constraints and indexes."""

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
