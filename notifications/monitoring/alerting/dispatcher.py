"""Sends each alert once per repeat interval, however many processes evaluate, and once more when it is resolved.

A row of `notification_alerts` is one alert for one receiver. An evaluation updates the rows and then sends:

- Active: `first_seen`, `last_seen`. Sent once per ALERT_WINDOW while it lasts: `sent_at`.
- Resolved: no longer active, and sent before: `resolved_at`. The resolved message is sent once: `resolution_sent_at`.
- A process claims the row before it sends: `claimed_until`. When the receiver fails or the process dies, the next
  evaluation sends again.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import timedelta

from django.db import transaction
from django.db.models import Case, F, Q, When
from django.db.models.functions import Now
from django.dispatch import Signal

from notifications.conf import service_options
from notifications.content.sanitize import clean_json
from notifications.exceptions import NotificationError
from notifications.models import Alert
from notifications.monitoring.alerting.messages import compose_alert
from notifications.monitoring.alerting.owner_emails import email_channel_owners
from notifications.monitoring.alerting.receivers import Receiver, ReceiverError, configured_receivers
from notifications.monitoring.alerting.rules import ActiveAlert, active_alerts
from notifications.monitoring.conditions import ConditionName, evaluate_conditions
from notifications.monitoring.indicators import Indicators

logger = logging.getLogger("notifications.alerts")

alert_sent = Signal()
"""Sent once for each alert, and once when it is resolved.

Arguments: `cause`, `kind`, `count`, `subject`, `text`, `severity` ("warning" or "critical"), and `cleared`, which is
True when the alert is resolved.
"""


class PostgresqlAway(NotificationError):
    """PostgreSQL refuses queries, so the alerts were not evaluated."""


CLAIM_SECONDS = 60.0
"""How long one process may take to send one alert: longer than any receiver takes."""
MAX_CAUSE_LENGTH = 191


def evaluate() -> None:
    """Evaluate the conditions, update the alerts, and send what is to be sent. Any number of processes may do so.

    A receiver that fails is not used again in this evaluation.

    Raises:
        PostgresqlAway: A query failed. The known conditions are incomplete, so that no alert may be resolved by them.
        DatabaseError: PostgreSQL failed later, while alerts were stored.
    """
    conditions = evaluate_conditions(Indicators())
    if any(condition.name == ConditionName.POSTGRESQL_AWAY for condition in conditions):
        raise PostgresqlAway
    receivers: dict[str, Receiver | None] = {"signal": None, **configured_receivers()}
    alerts = list(active_alerts(conditions))
    _upsert_alerts(alerts, list(receivers))
    _mark_resolved(alerts)
    while receivers and (alert := _claim_alert(list(receivers))):
        if not _send(alert, receivers[alert.receiver]):
            del receivers[alert.receiver]
    email_channel_owners()


_last_evaluation: list[float] = []
"""When `evaluate_if_due` last evaluated in this process, on its monotonic clock."""


def evaluate_if_due() -> None:
    """Evaluate, at most once per SWEEP_INTERVAL. For processes that notice when beat has stopped. Never raises."""
    now = time.monotonic()
    if _last_evaluation and now - _last_evaluation[0] < service_options().sweep_interval:
        return
    _last_evaluation[:] = [now]
    try:
        evaluate()
    except Exception as error:
        logger.warning("alerts not evaluated: %s", type(error).__name__, extra={"event": "alert.blind"})


def _upsert_alerts(alerts: list[ActiveAlert], receivers: list[str]) -> None:
    # All processes use the same order of rows, so that two evaluations cannot deadlock.
    by_cause = {alert.cause[:MAX_CAUSE_LENGTH]: alert for alert in sorted(alerts, key=lambda alert: alert.cause)}
    rows = [
        Alert(cause=cause, receiver=receiver, kind=alert.kind, count=alert.count, first_seen=Now(), last_seen=Now())
        for cause, alert in by_cause.items()
        for receiver in sorted(receivers)
    ]
    Alert.objects.bulk_create(rows, ignore_conflicts=True)
    with transaction.atomic():
        stored = Alert.objects.filter(cause__in=by_cause, receiver__in=receivers)
        list(stored.order_by("cause", "receiver").select_for_update().values_list("pk"))
        for cause, alert in by_cause.items():
            stored.filter(cause=cause).update(
                details=json.loads(clean_json(alert.details) or "{}"),
                count=alert.count,
                first_seen=Case(When(resolved_at__isnull=True, then=F("first_seen")), default=Now()),
                last_seen=Now(),
                resolved_at=None,
            )


def _mark_resolved(alerts: list[ActiveAlert]) -> None:
    # A row that was never sent stays active although it is over: its receiver may have failed all the time.
    sent = Q(sent_at__gte=F("first_seen") - _repeat_interval())
    over = Alert.objects.filter(sent, resolved_at__isnull=True).exclude(
        cause__in=[alert.cause[:MAX_CAUSE_LENGTH] for alert in alerts]
    )
    with transaction.atomic():
        keys = list(over.select_for_update(skip_locked=True).values_list("pk", flat=True))
        Alert.objects.filter(pk__in=keys).update(resolved_at=Now())


def _claim_alert(receivers: list[str]) -> Alert | None:
    """Claim an alert for CLAIM_SECONDS and return it; None when nothing is to be sent to these receivers."""
    unclaimed = Q(claimed_until__isnull=True) | Q(claimed_until__lt=Now())
    repeat = Q(sent_at__isnull=True) | Q(sent_at__lt=Now() - _repeat_interval())
    to_send = Q(repeat, resolved_at__isnull=True) | Q(resolved_at__isnull=False, resolution_sent_at__isnull=True)
    alerts = Alert.objects.filter(unclaimed, to_send, receiver__in=receivers).order_by("first_seen", "pk")
    with transaction.atomic():
        alert = alerts.select_for_update(skip_locked=True).first()
        if alert:
            Alert.objects.filter(pk=alert.pk).update(claimed_until=Now() + timedelta(seconds=CLAIM_SECONDS))
    return alert


def _send(alert: Alert, receiver: Receiver | None) -> bool:
    """Send an alert, store the result, and return whether it was sent. No receiver: log it and send the signal."""
    subject, text = compose_alert(alert.kind, alert.count, alert.details, alert.first_seen, alert.resolved_at)
    error_text = ""
    try:
        if receiver:
            receiver(subject, text)
        else:
            _send_signal(alert, subject, text)
    except ReceiverError as error:
        error_text = str(error)
    except Exception as error:
        error_text = type(error).__name__  # its text may hold an address or a password
    row = Alert.objects.filter(pk=alert.pk)
    if error_text:
        row.update(claimed_until=None)
        logger.error(
            "alert not sent by %s: %s",
            alert.receiver,
            error_text,
            extra={"event": "alert.failed", "cause": alert.cause},
        )
    elif alert.resolved_at:
        row.update(claimed_until=None, resolution_sent_at=Now())
    else:
        row.update(claimed_until=None, sent_at=Now(), resolution_sent_at=None)
    return not error_text


def _send_signal(alert: Alert, subject: str, text: str) -> None:
    event = "alert.cleared" if alert.resolved_at else "alert.raised"
    severity = alert.details.get("severity", "")
    logger.warning("%s", subject, extra={"event": event, "cause": alert.cause, "severity": severity})
    alert_sent.send_robust(
        sender=None,
        cause=alert.cause,
        kind=alert.kind,
        count=alert.count,
        subject=subject,
        text=text,
        severity=severity,
        cleared=bool(alert.resolved_at),
    )


def _repeat_interval() -> timedelta:
    return timedelta(seconds=service_options().alert_window)
