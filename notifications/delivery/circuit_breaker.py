"""Circuit breaker: pause a channel whose endpoint needs a person, and only probe an endpoint that keeps failing.

The other records of such an endpoint are held; see `held_records`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Expression, F, QuerySet, Value, When
from django.db.models.functions import Coalesce, Greatest

from notifications.clock import Clock, current_time
from notifications.conf import ServiceOptions
from notifications.content.sanitize import clean_text
from notifications.delivery.claim import Claimed
from notifications.delivery.held_records import release_held_records
from notifications.delivery.settlement import HOLD_AFTER_RATE_LIMITS, Settlement, needs_owner
from notifications.models import UserNotificationChannel
from notifications.states import ErrorCode, HoldReason, Outcome

logger = logging.getLogger("notifications.health")

PROBE_AFTER_FAILURES = 5
"""Failures in a row after which an endpoint is only probed."""
ENDPOINT_FAILURES: dict[str, int] = {
    ErrorCode.PROVIDER_TIMEOUT: PROBE_AFTER_FAILURES,
    ErrorCode.PROVIDER_5XX: PROBE_AFTER_FAILURES,
    ErrorCode.NETWORK_ERROR: PROBE_AFTER_FAILURES,
    ErrorCode.PROVIDER_RATE_LIMITED: HOLD_AFTER_RATE_LIMITS,
}
"""Temporary failures that the endpoint causes, not the message, and how many in a row make it a failing one."""
OWNER_MAIL_INTERVAL = timedelta(days=1)
"""Time between two mails to an owner whose endpoint is at its rate limit."""


def blocked_rows(rows: Sequence[Claimed], options: ServiceOptions, clock: Clock | None) -> dict[int, HoldReason]:
    """Find the claimed records that must not be sent now.

    If the probe of a failing endpoint is due, one of its records is not blocked: it is the probe. A test message is
    never blocked, whichever process claims it: that is how its user finds out whether the endpoint works again.

    Args:
        rows: The claimed records.
        options: For `probe_interval` (seconds).
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        The reason of each blocked record, by record id.
    """
    reasons: dict[int, HoldReason] = {}
    probe_taken: dict[int, bool] = {}
    for row in rows:
        if row.channel_id is None or row.unsendable or row.is_test:
            continue
        if row.paused:
            reasons[row.record_id] = HoldReason.CHANNEL_PAUSED
        elif row.probe_in is not None:
            first = row.channel_id not in probe_taken
            if first:
                probe_taken[row.channel_id] = row.probe_in <= 0 and _take_probe(row.channel_id, options, clock)
            if not (first and probe_taken[row.channel_id]):
                reasons[row.record_id] = HoldReason.ENDPOINT_FAILING
    return reasons


def record_results(group: Iterable[Settlement], options: ServiceOptions, clock: Clock | None) -> None:
    """Update the health of the endpoints from the results of attempts. Costs no query while all are healthy.

    Args:
        group: The settlements.
        options: For `probe_interval`, `resume_rate` and `sweep_interval`.
        clock: Clock of a test; None for PostgreSQL's clock.

    Raises:
        DatabaseError: The health of one endpoint could not be stored; the health of later endpoints was not updated.
    """
    by_channel: dict[int, list[Settlement]] = defaultdict(list)
    for item in group:
        if item.row.channel_id is not None:
            by_channel[item.row.channel_id].append(item)
    for channel_id, items in sorted(by_channel.items()):
        refused = next((item for item in items if needs_owner(item.result)), None)
        failed = [item for item in items if _failures_allowed(item)]
        if refused:
            _pause(channel_id, refused, options, clock)
        elif any(map(_proves_health, items)):
            if failed or any(item.row.failures for item in items):
                _reset_failures(channel_id, clock)
                release_held_records(channel_id, options, clock)
        elif failed:
            _add_failures(channel_id, failed, options, clock)


def resume_channel(channel_id: int, options: ServiceOptions, clock: Clock | None = None) -> bool:
    """Mark the endpoint of a channel as healthy, because an operator resumed it or a test message arrived.

    Its held records are released, oldest first, at RESUME_RATE.

    Args:
        channel_id: Id of the user's channel settings.
        options: For `resume_rate` and `sweep_interval`.
        clock: Clock of a test; None for PostgreSQL's clock.

    Returns:
        Whether the channel exists.
    """
    now = current_time(clock)
    resumed = _channel(channel_id).update(
        paused_at=None, pause_reason="", failures=0, probe_at=None, release_at=now, updated_at=now
    )
    if not resumed:
        return False
    logger.info("channel %d resumed", channel_id, extra={"event": "channel.resumed", "channel_id": channel_id})
    release_held_records(channel_id, options, clock)
    return True


def _take_probe(channel_id: int, options: ServiceOptions, clock: Clock | None) -> bool:
    """Reserve the due probe for this process. Return False if another process has reserved it."""
    now = current_time(clock)
    due = _channel(channel_id).filter(probe_at__lte=now)
    return bool(due.update(probe_at=now + timedelta(seconds=options.probe_interval)))


def _pause(channel_id: int, item: Settlement, options: ServiceOptions, clock: Clock | None) -> None:
    now = current_time(clock)
    reason = clean_text(item.result.error_message, 191)
    if (
        _with_claimed_address(channel_id, item)
        .filter(paused_at__isnull=True)
        .update(paused_at=now, pause_reason=reason, release_at=None, updated_at=now)
    ):
        logger.warning(
            "channel %d paused: %s",
            channel_id,
            reason,
            extra={"event": "channel.paused", "channel_id": channel_id, "user_id": item.row.user_id, "reason": reason},
        )
    elif _channel(channel_id).filter(paused_at__isnull=True).update(release_at=Coalesce("release_at", now)):
        # The address was changed during the send: the refused record may be sent to the new address.
        release_held_records(channel_id, options, clock)


def _failures_allowed(item: Settlement) -> int:
    """Return how many such failures in a row make the endpoint a failing one; 0 if it is not the endpoint's failure."""
    return 1 if item.result.holds_endpoint else ENDPOINT_FAILURES.get(item.result.error_code, 0)


def _proves_health(item: Settlement) -> bool:
    """Return whether the endpoint takes messages: it took this one, or refused only its content.

    Otherwise an endpoint that refuses a row of messages would stay a failing one, which gets one message per probe.
    """
    return item.result.outcome == Outcome.SUCCESS or item.result.error_code == ErrorCode.PAYLOAD_INVALID


def _takes_nothing(item: Settlement) -> bool:
    """Return whether the endpoint said that it takes no message now. It is probed less often than one that fails."""
    return item.result.holds_endpoint or item.result.error_code == ErrorCode.PROVIDER_RATE_LIMITED


def _reset_failures(channel_id: int, clock: Clock | None) -> None:
    release_at = Case(When(probe_at__isnull=False, then=current_time(clock)), default=F("release_at"))
    reason = Case(When(paused_at__isnull=True, then=Value("")), default=F("pause_reason"))
    failing = _channel(channel_id).filter(failures__gt=0)
    failing.update(failures=0, probe_at=None, release_at=release_at, pause_reason=reason)


def _add_failures(channel_id: int, failed: list[Settlement], options: ServiceOptions, clock: Clock | None) -> None:
    last = failed[-1]
    now = current_time(clock)
    below = _failures_allowed(last) - len(failed)
    failures = F("failures") + len(failed)
    wait = max(options.probe_interval, *(item.probe_delay if _takes_nothing(item) else 0.0 for item in failed))
    probe_at = Greatest("probe_at", now + timedelta(seconds=wait))
    channel = _with_claimed_address(channel_id, last)
    healthy, failing = channel.filter(probe_at__isnull=True), channel.filter(probe_at__isnull=False)
    # Each update applies to its own channels, so that one of them counts and the beginning of a hold is logged once.
    if failing.update(failures=failures, probe_at=probe_at) or healthy.filter(failures__lt=below).update(
        failures=failures
    ):
        pass
    elif healthy.update(failures=failures, probe_at=probe_at, **_told_to_owner(last, now)):
        logger.warning(
            "the endpoint of channel %d keeps failing and is only probed from now on",
            channel_id,
            extra={"event": "channel.failing", "channel_id": channel_id, "user_id": last.row.user_id},
        )
    else:
        failing.update(failures=failures, probe_at=probe_at)
    if last.row.probe_in is not None:
        release_held_records(channel_id, options, clock)


def _told_to_owner(item: Settlement, now: datetime | Expression) -> dict[str, Any]:
    """Return the fields from which `owner_emails` learns to tell the owner. Only a rate limit is the owner's matter.

    An endpoint at its limit may be held again and again, so its owner is told once a day.
    """
    if item.result.error_code != ErrorCode.PROVIDER_RATE_LIMITED:
        return {}
    long_ago = When(owner_notified_at__lt=now - OWNER_MAIL_INTERVAL, then=None)
    return {
        "pause_reason": clean_text(item.result.error_message, 191),
        "owner_notified_at": Case(long_ago, default=F("owner_notified_at")),
    }


def _channel(channel_id: int) -> QuerySet[UserNotificationChannel]:
    return UserNotificationChannel.objects.filter(pk=channel_id)


def _with_claimed_address(channel_id: int, item: Settlement) -> QuerySet[UserNotificationChannel]:
    """Select the channel only if it still has the address of the send: a late result says nothing about a new one."""
    if item.row.endpoint is None:
        return UserNotificationChannel.objects.none()
    return _channel(channel_id).filter(webhook_url=item.row.endpoint.webhook_url)
