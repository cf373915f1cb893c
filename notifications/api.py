"""The entrance for code in the same Django project.

    from notifications.api import request_notification

Call it inside your own transaction: what rolls back is never sent, what commits is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import InterfaceError, OperationalError, transaction
from django.utils.translation import gettext_lazy as _

from notifications.broker.nudge import nudge
from notifications.conf import service_options
from notifications.delivery import circuit_breaker
from notifications.ingest.insert import Accepted
from notifications.ingest.payload import NotificationPayload
from notifications.ingest.triggers import TRIGGERED, compose, parse_trigger
from notifications.ingest.validation import Check, DedupeConflict, InvalidNotification
from notifications.models import DueJob, NotificationRecord, ReplayOperation
from notifications.querysets import NotificationQuerySet, max_user_id
from notifications.service import NotificationService, Progress

__all__ = [
    "Accepted",
    "DedupeConflict",
    "InvalidNotification",
    "NotificationPayload",
    "Scheduled",
    "cancel_notification",
    "replay_notifications",
    "request_notification",
    "request_notifications",
    "request_triggered",
    "resume_channel",
    "schedule_job",
    "send_notifications_now",
]


def request_notification(
    payload: NotificationPayload,
    *,
    channel: str = "feishu",
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> Accepted:
    """Ask for one notification; it goes out after your transaction has committed.

    payload: the fields of docs/events.md. channel: by which provider, see docs/providers.md.
    deliver_at: not before this time, with a time zone. expires_at: not from this time on; it is skipped instead.
    Returns the record's id, and whether the dedupe key was known already (then nothing new is sent).
    Raises InvalidNotification listing every wrong field, or naming a channel without a provider;
    DedupeConflict if the key belongs to another user.
    """
    [accepted] = request_notifications([payload], channel=channel, deliver_at=deliver_at, expires_at=expires_at)
    return accepted


def request_notifications(
    payloads: Iterable[NotificationPayload],
    *,
    channel: str = "feishu",
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> list[Accepted]:
    """Ask for many at once: all are stored, or none and the error is raised. Arguments as for one."""
    accepted = NotificationService().accept(payloads, channel=channel, deliver_at=deliver_at, expires_at=expires_at)
    if not all(one.reused for one in accepted):
        transaction.on_commit(_nudge, robust=True)
    return accepted


def request_triggered(payload: object) -> list[Accepted]:
    """Let a trigger happen: what the composer makes of it is asked for, all of it or nothing.

    payload: the fields of a trigger, docs/events.md. One that comes twice makes its notifications once.
    Raises InvalidNotification listing every wrong field of the trigger, or of what the composer made.
    """
    trigger = parse_trigger(payload, max_user_id=max_user_id())
    try:
        made = compose(trigger)
    except (InvalidNotification, OperationalError, InterfaceError):
        raise  # the last two: PostgreSQL is away, and the trigger can happen later
    except Exception as error:
        # Kept as refused by the entrances, so that a bug of a composer loses no trigger. The type only, it is foreign.
        text = _("the composer failed: %(error)s") % {"error": type(error).__name__}
        raise InvalidNotification([("payload", text)]) from error
    return request_notifications(cast("list[NotificationPayload]", made))  # checked there, whoever composed it


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What became of one job."""

    job_id: int
    reused: bool
    """Whether the key was known before; then that job stays as it is."""


def schedule_job(event: str, payload: object, run_at: datetime, key: str) -> Scheduled:
    """Let an event happen at a time, once your transaction has committed.

    event: "active_schedule.triggered". payload: the event's, checked now; `requested_at` is `run_at` by default.
    run_at: with a time zone. key: names the job, one job for each, whatever else differs.
    Raises InvalidNotification listing every wrong field.
    """
    check = Check({"event": event, "run_at": run_at, "key": key}, ("event", "run_at", "key"))
    check.choice("event", (TRIGGERED,))
    moment, key = check.time("run_at"), check.line("key", 191)
    check.raise_if_refused()
    if isinstance(payload, Mapping):
        payload = {"requested_at": moment, **payload}
    trigger = parse_trigger(payload, max_user_id=max_user_id())
    fields = {"event": event, "payload": trigger.as_json(), "run_at": moment, "next_run_at": moment}
    job, created = DueJob.objects.get_or_create(key=key, defaults=fields)
    return Scheduled(job_id=job.pk, reused=not created)


def replay_notifications(
    records: NotificationQuerySet[NotificationRecord],
    actor: AbstractBaseUser | None,
    reason: str,
    *,
    force: bool = False,
    progress: Progress | None = None,
    operation: ReplayOperation | None = None,
) -> int:
    """Let records be sent again, and at once rather than with the next sweep. Arguments and result: the service's."""
    replayed = NotificationService().replay(records, actor, reason, force=force, progress=progress, operation=operation)
    if replayed:
        transaction.on_commit(_nudge, robust=True)
    return replayed


def send_notifications_now(
    records: NotificationQuerySet[NotificationRecord], actor: AbstractBaseUser | None, reason: str
) -> int:
    """Let records that wait for a later time go out at once. Arguments and result: the service's."""
    hastened = NotificationService().send_now(records, actor, reason)
    if hastened:
        transaction.on_commit(_nudge, robust=True)
    return hastened


def cancel_notification(dedupe_key: str, *, channel: str = "feishu", reason: str = "by its producer") -> bool:
    """Call off a notification that still waits, by the key it was requested with.

    Returns whether it was called off; False for one that is unknown, in a worker's hands, or done.
    """
    records = NotificationRecord.objects.filter(dedupe_key=dedupe_key, channel=channel)
    return NotificationService().cancel(records, None, reason) > 0


def resume_channel(channel_id: int) -> bool:
    """Take a user's paused or failing endpoint for well: what waits for it goes out, oldest first, at RESUME_RATE.

    Returns whether there is such a channel.
    """
    resumed = circuit_breaker.resume_channel(channel_id, service_options())
    if resumed:
        transaction.on_commit(_nudge, robust=True)
    return resumed


def _nudge() -> None:
    # A named function: Django's handler for a failing robust hook reads its __qualname__.
    nudge()
