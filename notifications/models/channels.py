"""Endpoints of users, groups and addresses, and the health of each."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from notifications.clock import database_now
from notifications.content.text import escape_invisible
from notifications.querysets import EndpointQuerySet, PrimaryManager
from notifications.security.address_secrets import mask_url
from notifications.security.fields import SecretField
from notifications.security.secrets import SecretUnreadable
from notifications.states import AuthType, TestStatus

ADDRESS_LABEL = "address:"
"""Beginning of the label of an endpoint that was made for an address; the rest is a hash of the address."""


class ChangeTimeField(models.DateTimeField):  # type: ignore[type-arg]
    """The time of the last `save()`, by PostgreSQL's clock. Django's `auto_now` would take that of this machine."""

    def deconstruct(self) -> Any:
        """Return Django's own field: the difference does not reach the database."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def pre_save(self, model_instance: models.Model, add: bool) -> datetime:
        """Return the time, and set it on the instance."""
        now = database_now()
        setattr(model_instance, self.attname, now)
        return now


class UserNotificationChannel(models.Model):
    """An endpoint: its address, its authentication and its health.

    It belongs to a user, or to nobody: the bot of a group, an address, an alias such as "on-call".
    """

    user: models.ForeignKey[Any, Any] = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="notification_channels",
        verbose_name=_("user"),
        null=True,
        blank=True,
    )
    label = models.CharField(
        _("label"),
        max_length=191,
        blank=True,
        default="",
        db_default="",
        help_text=_(
            "Tells several endpoints of a user on one channel apart. An endpoint without a user is named by it, such "
            "as on-call."
        ),
    )
    channel = models.CharField(_("channel"), max_length=32, default="feishu")
    enabled = models.BooleanField(_("enabled"), default=True)
    webhook_url = SecretField(_("webhook address"), blank=True, default="")
    auth_type = models.CharField(_("authentication"), max_length=16, choices=AuthType.choices, default=AuthType.NONE)
    bearer_token = SecretField(_("bearer token"), blank=True, default="")
    paused_at = models.DateTimeField(_("paused"), null=True, blank=True)
    pause_reason = models.CharField(_("reason of the pause"), max_length=191, blank=True)
    owner_notified_at = models.DateTimeField(
        _("owner notified of the pause"), null=True, blank=True, editable=False, db_column="owner_told_at"
    )
    """The `paused_at` of the pause that the owner was notified of."""
    release_at = models.DateTimeField(_("next release"), null=True, blank=True, editable=False)
    """Time from which the next held records may be released; None while none are being released."""
    failures = models.IntegerField(_("failures in a row"), default=0, db_default=0, editable=False)
    probe_at = models.DateTimeField(_("next probe"), null=True, blank=True, editable=False)
    """Time of the next probe. Set while the endpoint is failing, so that only one record per interval is sent."""
    last_test_status = models.CharField(
        _("last test"), max_length=16, choices=TestStatus.choices, blank=True, default=TestStatus.NEVER
    )
    last_test_error = models.CharField(_("error of the last test"), max_length=191, blank=True)
    last_test_at = models.DateTimeField(_("time of the last test"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())
    updated_at = ChangeTimeField(_("changed"), auto_now=True)

    objects: ClassVar[EndpointQuerySet[UserNotificationChannel]] = PrimaryManager.from_queryset(EndpointQuerySet)()  # type: ignore[assignment]

    class Meta:
        """Table, permissions, constraints and indexes."""

        db_table = "user_notification_channels"
        verbose_name = _("user's channel")
        verbose_name_plural = _("users' channels")
        constraints = (
            models.UniqueConstraint(
                fields=("user", "channel", "label"), name="endpoint_of_user", condition=Q(user__isnull=False)
            ),
            models.UniqueConstraint(
                fields=("label", "channel"), name="endpoint_without_user", condition=Q(user__isnull=True)
            ),
            models.CheckConstraint(condition=Q(user__isnull=False) | ~Q(label=""), name="endpoint_has_owner_or_label"),
        )
        indexes = (
            models.Index(
                fields=("id",),
                name="channel_to_tend",
                condition=Q(release_at__isnull=False) | Q(probe_at__isnull=False),
            ),
            # Metrics and alerts count the paused channels every minute; few channels are paused.
            models.Index(fields=("paused_at",), name="channel_paused", condition=Q(paused_at__isnull=False)),
        )

    def __str__(self) -> str:
        return " / ".join(
            filter(None, (self.channel, "" if self.user_id is None else str(self.user_id), self.shown_label))
        )

    @property
    def shown_label(self) -> str:
        """The label as people read it: of an endpoint that was made for an address, the address masked."""
        if not self.label.startswith(ADDRESS_LABEL):
            return escape_invisible(self.label)
        try:
            return mask_url(self.webhook_url.reveal())
        except SecretUnreadable:
            return self.label
