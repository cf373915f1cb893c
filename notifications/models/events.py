"""Events that wait for the receivers of signals."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from notifications.querysets import PrimaryManager
from notifications.signals import RECORD_SIGNALS


class NotificationEvent(models.Model):
    """A change of a record that receivers are to be called for. lifecycle/relay.py deletes it when all have taken it.

    Its id orders the events of a record.
    """

    record = models.ForeignKey(
        "NotificationRecord",
        on_delete=models.DO_NOTHING,
        db_constraint=False,  # a purge deletes the record only
        db_index=False,  # the index event_of_record begins with this column
        related_name="+",
        verbose_name=_("notification"),
    )
    name = models.CharField(_("signal"), max_length=16, choices=[(name, name) for name in RECORD_SIGNALS])
    payload = models.JSONField(_("arguments"))
    received_by = models.JSONField(_("taken by"), default=list)
    """Names of the receivers that have taken it, where another one has failed."""
    occurred_at = models.DateTimeField(_("time"))
    attempts = models.IntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True)
    """Time from which receivers may be called; None when it was given up."""
    error = models.CharField(_("error"), max_length=191, blank=True)

    objects: ClassVar[models.Manager[NotificationEvent]] = PrimaryManager()

    class Meta:
        """Table, permissions and indexes."""

        db_table = "notification_events"
        verbose_name = _("signal to send")
        verbose_name_plural = _("signals to send")
        default_permissions = ("view", "delete")
        indexes = (
            models.Index(
                fields=("next_attempt_at", "id"), name="event_due", condition=Q(next_attempt_at__isnull=False)
            ),
            models.Index(fields=("record", "id"), name="event_of_record"),
            models.Index(  # for the purge; an event that is taken is never in it
                fields=("occurred_at",), name="event_given_up", condition=Q(next_attempt_at__isnull=True)
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} #{self.pk}"
