"""The Python API for code in the same Django project.

    from notifications.api import notify

Call the functions inside your own transaction. A request that rolls back is never sent; one that commits is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import InterfaceError, OperationalError
from django.utils.translation import gettext_lazy as _

from notifications.broker.nudge import nudge_on_commit
from notifications.conf import service_options
from notifications.content.message import Mention
from notifications.content.text import trim
from notifications.delivery import circuit_breaker
from notifications.ingest.insert import Accepted
from notifications.ingest.message_event import read_message_event
from notifications.ingest.payload import NotificationPayload
from notifications.ingest.recipients import Recipient
from notifications.ingest.triggers import TRIGGERED, compose, parse_trigger
from notifications.ingest.validation import Check, DedupeConflict, InvalidNotification, time_problem
from notifications.messages import MessageStatus, Notified, request_message, reschedule_message, statuses_of
from notifications.models import DueJob, NotificationRecord, ReplayOperation
from notifications.querysets import NotificationQuerySet
from notifications.service import NotificationService, Progress
from notifications.user_keys import max_user_id

__all__ = [
    "Accepted",
    "DedupeConflict",
    "InvalidNotification",
    "Mention",
    "MessageStatus",
    "NotificationPayload",
    "Notified",
    "Recipient",
    "Scheduled",
    "anotify",
    "cancel",
    "cancel_notification",
    "notify",
    "replay_notifications",
    "request_notification",
    "request_notifications",
    "request_triggered",
    "reschedule",
    "resume_channel",
    "schedule_job",
    "send_notifications_now",
    "status_of",
]


def notify(
    recipients: Any,
    text: str = "",
    *,
    title: str = "",
    url: str = "",
    action: str = "",
    key: str | None = None,
    channels: Iterable[str] | None = None,
    kind: str = "",
    context: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    language: str | None = None,
    mentions: Sequence[Mention] = (),
    priority: int = 1,
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
    order_key: str = "",
    replace: bool = False,
) -> list[Notified]:
    """Send a message to somebody. It is sent after your transaction has committed.

    Args:
        recipients: One recipient or many: a user, a user's primary key, a mail address, the label of an endpoint that
            belongs to nobody, a UserNotificationChannel, or a `Recipient`; or pairs of one of these and a context.
        text: The text; blank if `kind` has a template for it.
        title: The title, and subject of a mail; by default a mail has the first line of the text.
        url: A link: a path of your site, or an address that LINKS allows.
        action: The text of the link; by default "Open" in the recipient's language.
        key: Identifies the message. A second call with the same key sends nothing new to the same recipient and
            channel. Without a key one is made.
        channels: Names of the channels. By default all endpoints of a recipient that are switched on, else
            DEFAULT_CHANNEL.
        kind: Name of the message's kind. Its templates are notifications/<kind>/title.txt, text.txt and html.html.
        context: Values for the templates. They are rendered now.
        data: Free JSON values for webhooks. Providers read their own part: `email`, `feishu` (docs/messages.md).
        language: Language of the templates; by default the recipient's (LANGUAGE_ATTRIBUTE), else the project's.
        mentions: Members of a group to mention, on channels that can.
        priority: 0 low, 1 normal, 2 high, 3 urgent.
        deliver_at: Time of the first possible send, with a time zone; at once by default.
        expires_at: Time from which the message is skipped instead of sent, with a time zone; never by default.
        order_key: Messages with the same key are sent one after the other.
        replace: If the key is known: change what still waits, and send what was cancelled or is dead once more.

    Returns:
        One result for each recipient and channel.

    Raises:
        InvalidNotification: An argument is not valid; every wrong one is listed. Nothing is stored.
        DedupeConflict: The key belongs to an event of docs/events.md.
    """
    arguments: dict[str, Any] = {
        "text": text,
        "title": title,
        "url": url,
        "action": action,
        "key": key,
        "kind": kind,
        "context": context,
        "data": data,
        "language": language,
        "mentions": mentions,
        "priority": priority,
        "deliver_at": deliver_at,
        "expires_at": expires_at,
        "order_key": order_key,
    }
    results = request_message(recipients, arguments, channels=channels, replace=replace, options=service_options())
    if not all(result.reused and not result.changed for result in results):
        nudge_on_commit()
    return results


async def anotify(recipients: Any, text: str = "", **arguments: Any) -> list[Notified]:
    """Call `notify` from async code. A transaction of the caller is not used: Django has none in async code.

    Args:
        recipients: As for `notify`.
        text: As for `notify`.
        arguments: The other arguments of `notify`.
    """
    return await sync_to_async(notify)(recipients, text, **arguments)


def notify_from_event(payload: object) -> list[Notified]:
    """Send the message of an event `notification.requested` (docs/messages.md).

    Args:
        payload: The fields of the event.

    Raises:
        InvalidNotification: A field is not valid.
    """
    return notify(**read_message_event(payload))


def reschedule(key: str, deliver_at: datetime, *, expires_at: datetime | None = None) -> int:
    """Change when a message is sent, for all recipients that still wait for it.

    Args:
        key: The key of the message.
        deliver_at: Time of the first possible send, with a time zone.
        expires_at: Time from which it is skipped instead of sent; None to leave it as it is.

    Returns:
        Number of records that were changed. 0 if the key is unknown, or nothing of it waits.

    Raises:
        InvalidNotification: A time is not valid.
    """
    changed = reschedule_message(key, deliver_at, expires_at=expires_at)
    if changed:
        nudge_on_commit()
    return changed


def status_of(key: str) -> list[MessageStatus]:
    """Return what became of a message: one status for each recipient and channel.

    Args:
        key: The key of the message.
    """
    return statuses_of(key)


def cancel(key: str, *, reason: str = "by its producer") -> int:
    """Cancel a message for all recipients that still wait for it.

    Args:
        key: The key of the message.
        reason: The reason, for the logs.

    Returns:
        Number of records that were cancelled. What is being sent or was sent stays.
    """
    records = NotificationRecord.objects.filter(request_key=trim(key)).exclude(request_key="")
    return NotificationService().cancel(records, None, reason)


def request_notification(
    payload: NotificationPayload,
    *,
    channel: str = "feishu",
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
) -> Accepted:
    """Request one notification. It is sent after your transaction has committed.

    Args:
        payload: The fields of docs/events.md.
        channel: The channel, which selects the provider (docs/providers.md).
        deliver_at: Time of the first possible send, with a time zone; at once by default.
        expires_at: Time from which the notification is skipped instead of sent, with a time zone; never by default.

    Returns:
        The id of the record, and whether the dedupe key was known already. In that case nothing new is sent.

    Raises:
        InvalidNotification: A field is not valid, or the channel has no provider. Every wrong field is listed.
        DedupeConflict: The dedupe key belongs to a notification of another user.
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
    """Request many notifications at once: all of them are stored, or none.

    Args:
        payloads: One mapping per notification, with the fields of docs/events.md.
        channel: The channel of all of them.
        deliver_at: As for `request_notification`, for all of them.
        expires_at: As for `request_notification`, for all of them.

    Returns:
        One result per payload, in the same order.

    Raises:
        InvalidNotification: A field is not valid, or the channel has no provider.
        DedupeConflict: A dedupe key belongs to a notification of another user.
    """
    accepted = NotificationService().accept(payloads, channel=channel, deliver_at=deliver_at, expires_at=expires_at)
    if not all(result.reused for result in accepted):
        nudge_on_commit()
    return accepted


def request_triggered(payload: object) -> list[Accepted]:
    """Handle a trigger: request all notifications that the composer creates from it, or none.

    A trigger that is passed twice creates its notifications once.

    Args:
        payload: The fields of a trigger (docs/events.md).

    Returns:
        One result per notification.

    Raises:
        InvalidNotification: A field of the trigger, or of a composed payload, is not valid, or the composer failed.
        ImproperlyConfigured: The project has no TRIGGER_COMPOSER.
    """
    trigger = parse_trigger(payload, max_user_id=max_user_id())
    try:
        payloads = compose(trigger)
    except (InvalidNotification, OperationalError, InterfaceError):
        raise  # while PostgreSQL is unavailable; the caller retries later
    except Exception as error:
        # The tasks store a rejected trigger, so that a bug in a composer loses no trigger. Only the type is shown: the
        # text of a foreign exception may hold secrets.
        text = _("the composer failed: %(error)s") % {"error": type(error).__name__}
        raise InvalidNotification([("payload", text)]) from error
    return request_notifications(cast("list[NotificationPayload]", payloads))  # the payloads are checked there


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The result of `schedule_job`."""

    job_id: int
    reused: bool
    """Whether the key was known already. In that case the existing job is not changed."""


def schedule_job(event: str, payload: object, run_at: datetime, key: str) -> Scheduled:
    """Schedule an event. It is published at its time, if your transaction commits.

    Args:
        event: "active_schedule.triggered".
        payload: The payload of the event. It is checked now. `requested_at` is `run_at` by default.
        run_at: The time of the event, with a time zone.
        key: The name of the job, at most 191 characters. Each key has one job, even if other arguments differ.

    Returns:
        The id of the job, and whether the key was known already.

    Raises:
        InvalidNotification: An argument or a field of the payload is not valid. Every invalid one is listed.
    """
    check = Check({"event": event, "run_at": run_at, "key": key}, ("event", "run_at", "key"))
    check.choice("event", (TRIGGERED,))
    moment, key = check.time("run_at"), check.line("key", 191)
    if moment and (problem := time_problem(moment)):
        check.refuse("run_at", problem)
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
    """Replay records and wake a worker, so that they are sent at once.

    Args:
        records: The selected records. Only dead and skipped ones are replayed.
        actor: The user who replays them, for the admin's log; None for code.
        reason: The reason, for the logs.
        force: Also replay sent and cancelled records. The recipient then gets a sent message twice.
        progress: Called after each batch with the number of processed records and the number of all records.
        operation: The replay operation whose batch this is.

    Returns:
        The number of replayed records.
    """
    replayed = NotificationService().replay(records, actor, reason, force=force, progress=progress, operation=operation)
    if replayed:
        nudge_on_commit()
    return replayed


def send_notifications_now(
    records: NotificationQuerySet[NotificationRecord], actor: AbstractBaseUser | None, reason: str
) -> int:
    """Make waiting records due now and wake a worker.

    Args:
        records: The selected records. Only those that wait for a later time are changed.
        actor: The user who does it, for the admin's log; None for code.
        reason: The reason, for the logs.

    Returns:
        The number of records that became due.
    """
    changed = NotificationService().send_now(records, actor, reason)
    if changed:
        nudge_on_commit()
    return changed


def cancel_notification(dedupe_key: str, *, channel: str = "feishu", reason: str = "by its producer") -> bool:
    """Cancel a notification that still waits.

    Args:
        dedupe_key: The key that the notification was requested with. White space around it is no part of it.
        channel: Its channel.
        reason: The reason, for the logs.

    Returns:
        Whether it was cancelled. False if it is unknown, is being sent, or is final.
    """
    records = NotificationRecord.objects.filter(dedupe_key=trim(dedupe_key), channel=channel)  # as a request's key is
    return NotificationService().cancel(records, None, reason) > 0


def resume_channel(channel_id: int) -> bool:
    """Resume a user's paused or failing channel. Its held records are sent, oldest first, at RESUME_RATE.

    Args:
        channel_id: The id of the UserNotificationChannel.

    Returns:
        Whether there is such a channel.
    """
    resumed = circuit_breaker.resume_channel(channel_id, service_options())
    if resumed:
        nudge_on_commit()
    return resumed
