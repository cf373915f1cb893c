"""Held records: release those of a channel that was resumed, and schedule the probes of a failing endpoint.

A held record waits for its endpoint. It spends no attempt and no send slot meanwhile.
"""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from datetime import timedelta

from django.db import connection, transaction
from django.db.models import Case, CharField, Exists, ExpressionWrapper, OuterRef, Q, QuerySet, When

from notifications.clock import Clock, current_time
from notifications.conf import ServiceOptions
from notifications.lifecycle.events import heard_signals, write_events
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.sql import load_sql
from notifications.states import HELD_BY_ENDPOINT, SCHEDULED

_MARK_RECOVERED = load_sql("notifications.delivery", "mark_recovered")
_RELEASE_HELD_RECORDS = load_sql("notifications.delivery", "release_held_records")

_turn_lock = threading.Lock()
_last_turn = float("-inf")
"""When this process last called `release_and_probe_channels`, in seconds of the monotonic clock."""


def release_held_records(channel_id: int, options: ServiceOptions, clock: Clock | None = None) -> int:
    """Release held records of one channel, oldest first, at most RESUME_RATE x SWEEP_INTERVAL of them.

    The released records become due one after the other at RESUME_RATE. While the endpoint is failing, only one record
    becomes due, at the time of the next probe.

    Args:
        channel_id: Id of the user's channel settings.
        options: For `resume_rate` (records per second) and `sweep_interval` (seconds).
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        Number of records that became due. 0 if the channel is paused, or if another process has released records of
        the channel in this sweep interval.
    """
    batch = max(1, round(options.resume_rate * options.sweep_interval))
    if not _take_turn(channel_id, options, clock):
        return 0
    parameters = {
        "now": clock() if clock else None,
        "channel": channel_id,
        "batch": batch,
        "rate": options.resume_rate,
    }
    with transaction.atomic() if heard_signals() else nullcontext(), connection.cursor() as cursor:
        cursor.execute(_RELEASE_HELD_RECORDS, parameters)
        changed = cursor.fetchall()
        write_events((record_id, "released") for record_id, is_released in changed if is_released)
    if len(changed) < batch:
        # Not if a drain has held a record since: it would wait for HOLD_RECHECK_SECONDS.
        finished = UserNotificationChannel.objects.filter(pk=channel_id, release_at__isnull=False)
        finished.exclude(Exists(_held_records())).update(release_at=None)
    return len(changed)


def release_if_recovered(channel_ids: set[int], clock: Clock | None = None) -> None:
    """Let the next sweep release the held records of channels that have recovered since their records were claimed.

    A drain calls it after it has held records. Between its claim and the hold another process may have resumed the
    channel and released everything that was held until then.

    Args:
        channel_ids: Ids of the channels whose records were held.
        clock: Clock of a test; None for PostgreSQL's clock.
    """
    healthy = UserNotificationChannel.objects.filter(pk__in=channel_ids, paused_at__isnull=True, probe_at__isnull=True)
    healthy.filter(release_at__isnull=True).update(release_at=current_time(clock))


def _held_records() -> QuerySet[NotificationRecord]:
    """Select the held records of the endpoint of an outer query."""
    held = NotificationRecord.objects.filter(hold_reason__in=HELD_BY_ENDPOINT, status__in=SCHEDULED)
    label = ExpressionWrapper(OuterRef("label"), output_field=CharField())
    of_user = Q(endpoint_id__isnull=True, user_id=OuterRef("user_id"), channel=OuterRef("channel"), label="")
    return held.annotate(label=label).filter(Q(endpoint_id=OuterRef("pk")) | of_user)


def release_and_probe_channels(options: ServiceOptions, clock: Clock | None = None) -> None:
    """Release held records of resumed channels and schedule the next probe of failing ones. Called once per sweep.

    Args:
        options: As for `release_held_records`.
        clock: Clock of a test; None for PostgreSQL's clock.
    """
    with connection.cursor() as cursor:
        cursor.execute(_MARK_RECOVERED, {"now": clock() if clock else None})
    now = current_time(clock)
    next_sweep = now + timedelta(seconds=options.sweep_interval)
    channels = UserNotificationChannel.objects.filter(Q(release_at__lte=now) | Q(probe_at__lte=next_sweep))
    for channel_id in channels.order_by("pk").values_list("pk", flat=True):
        release_held_records(channel_id, options, clock)


def release_and_probe_channels_if_due(options: ServiceOptions, clock: Clock | None) -> None:
    """Call `release_and_probe_channels` if this process has not done so for one sweep interval.

    Args:
        options: As for `release_held_records`.
        clock: Clock of a test; None for PostgreSQL's clock.
    """
    global _last_turn
    with _turn_lock:
        if time.monotonic() - _last_turn < options.sweep_interval:
            return
        _last_turn = time.monotonic()
    release_and_probe_channels(options, clock)


def _take_turn(channel_id: int, options: ServiceOptions, clock: Clock | None) -> bool:
    """Reserve this interval's release of the channel for this process. So RESUME_RATE limits all processes together."""
    now = current_time(clock)
    next_turn = now + timedelta(seconds=options.sweep_interval)
    unpaused = UserNotificationChannel.objects.filter(pk=channel_id, paused_at__isnull=True)
    taken = unpaused.filter(Q(probe_at__isnull=False) | Q(release_at__lte=now)).update(
        release_at=Case(When(probe_at__isnull=True, then=next_turn), default=None)
    )
    return bool(taken)
