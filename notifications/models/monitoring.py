"""Heartbeats, alerts and counters."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from notifications.querysets import PrimaryManager
from notifications.states import AlertKind, HeartbeatKind, Measure


class Heartbeat(models.Model):
    """The time of the last heartbeat of a process, by PostgreSQL's clock. See telemetry/heartbeats.py."""

    name = models.CharField(_("name"), max_length=191, primary_key=True)
    kind = models.CharField(_("kind"), max_length=16, choices=HeartbeatKind.choices)
    seen_at = models.DateTimeField(_("last heartbeat"), db_default=Now())
    loop_lag = models.FloatField(_("lag of the loop in seconds"), null=True)
    """The longest time since the heartbeat before for which a worker did not look at its sends in flight."""

    objects: ClassVar[models.Manager[Heartbeat]] = PrimaryManager()

    class Meta:
        """Table, permissions, constraints and indexes."""

        db_table = "notification_heartbeats"
        verbose_name = _("heartbeat")
        verbose_name_plural = _("heartbeats")
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """One alert for one receiver. monitoring/alerting/dispatcher.py says how its times change."""

    cause = models.CharField(_("cause"), max_length=191)
    receiver = models.CharField(_("receiver"), max_length=32, db_column="sink")
    kind = models.CharField(_("kind"), max_length=16, choices=AlertKind.choices)
    details = models.JSONField(_("details"), default=dict, db_column="facts")
    count = models.IntegerField(_("count"))
    first_seen = models.DateTimeField(_("first seen"))
    last_seen = models.DateTimeField(_("last seen"))
    claimed_until = models.DateTimeField(null=True, db_column="telling_until")
    sent_at = models.DateTimeField(_("sent"), null=True, db_column="told_at")
    resolved_at = models.DateTimeField(_("resolved"), null=True, db_column="cleared_at")
    resolution_sent_at = models.DateTimeField(_("resolution sent"), null=True, db_column="all_clear_at")

    objects: ClassVar[models.Manager[Alert]] = PrimaryManager()

    class Meta:
        """Table, permissions, constraints and indexes."""

        db_table = "notification_alerts"
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=("cause", "receiver"), name="alert_once"),)

    def __str__(self) -> str:
        return f"{self.cause} / {self.receiver}"


class Counter(models.Model):
    """Number of attempts or deliveries of one kind in one hour. See telemetry/counters.py."""

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

    objects: ClassVar[models.Manager[Counter]] = PrimaryManager()

    class Meta:
        """Table, permissions, constraints and indexes."""

        db_table = "notification_tallies"
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.measure} {self.hour:%Y-%m-%d %H}"
