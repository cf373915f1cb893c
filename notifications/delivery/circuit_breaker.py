"""Endpoint health: what answers say of the endpoint itself, and which of its records wait until it is well.

A channel whose endpoint needs a person is paused. An endpoint that keeps failing is probed by one record per interval.
The others wait meanwhile: their next look is far off, they spend no attempt, and no slot waits with them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection

from notifications.clock import Clock
from notifications.conf import ServiceOptions
from notifications.content.sanitize import clean_text
from notifications.delivery.claim import Claimed
from notifications.delivery.settle import Settlement
from notifications.states import ErrorCode, HoldReason, Outcome

logger = logging.getLogger("notifications.health")

FAILING_CODES = (ErrorCode.PROVIDER_TIMEOUT, ErrorCode.PROVIDER_5XX, ErrorCode.NETWORK_ERROR)
"""Temporary failures that say something of the endpoint, rather than of the message or of our pace."""
PROBE_AFTER_FAILURES = 5
"""Failures in a row after which an endpoint is only probed."""

_turn = threading.Lock()
_tended = float("-inf")

_NOW = "COALESCE(%(now)s, statement_timestamp())"

_TAKE_PROBE = f"""
UPDATE user_notification_channels
SET probe_at = {_NOW} + %(interval)s * interval '1 second'
WHERE id = %(channel)s AND probe_at <= {_NOW}
RETURNING id
"""  # noqa: S608  our own words

# The address as it was claimed: a late answer must not pause a channel that has been mended meanwhile.
_PAUSE = f"""
UPDATE user_notification_channels
SET paused_at = {_NOW}, pause_reason = %(reason)s, release_at = NULL, updated_at = {_NOW}
WHERE id = %(channel)s AND paused_at IS NULL AND webhook_url = %(webhook_url)s
RETURNING user_id
"""  # noqa: S608  our own words

_FAILED = f"""
UPDATE user_notification_channels
SET failures = failures + %(count)s,
    probe_at = CASE WHEN failures + %(count)s >= %(probe_after)s
                    THEN greatest(probe_at, {_NOW} + %(interval)s * interval '1 second') END
WHERE id = %(channel)s AND webhook_url = %(webhook_url)s
RETURNING failures - %(count)s < %(probe_after)s AND probe_at IS NOT NULL
"""  # noqa: S608  our own words

_RECOVERED = f"""
UPDATE user_notification_channels
SET failures = 0, probe_at = NULL, release_at = CASE WHEN probe_at IS NOT NULL THEN {_NOW} ELSE release_at END
WHERE id = %(channel)s AND failures > 0
RETURNING release_at IS NOT NULL
"""  # noqa: S608  our own words

_RESUME = f"""
UPDATE user_notification_channels
SET paused_at = NULL, pause_reason = '', failures = 0, probe_at = NULL, release_at = {_NOW}, updated_at = {_NOW}
WHERE id = %(channel)s
RETURNING id
"""  # noqa: S608  our own words

_TO_TEND = f"""
SELECT id FROM user_notification_channels
WHERE release_at <= {_NOW} OR probe_at <= {_NOW} + %(interval)s * interval '1 second'
ORDER BY id
"""  # noqa: S608  our own words

# Each sweep interval has one batch, whichever process comes first: the rate holds for all of them together.
_TAKE_TURN = f"""
UPDATE user_notification_channels
SET release_at = CASE WHEN probe_at IS NULL THEN {_NOW} + %(interval)s * interval '1 second' END
WHERE id = %(channel)s AND paused_at IS NULL AND (probe_at IS NOT NULL OR release_at <= {_NOW})
RETURNING id
"""  # noqa: S608  our own words

_BEGIN_RELEASE = f"""
UPDATE user_notification_channels SET release_at = COALESCE(release_at, {_NOW})
WHERE id = %(channel)s AND paused_at IS NULL
RETURNING id
"""  # noqa: S608  our own words

# One statement lets go what may go now: all of a batch where the endpoint is well, one where it is to be probed.
_LET_GO = f"""
WITH channel AS (
    SELECT user_id, channel, probe_at FROM user_notification_channels WHERE id = %(channel)s AND paused_at IS NULL
), waiting AS (
    SELECT record.id, channel.probe_at
    FROM notification_records AS record JOIN channel USING (user_id, channel)
    WHERE record.wait_reason IN ('channel_paused', 'endpoint_failing')
      AND record.status IN ('pending', 'failed', 'sending')  -- sending: its worker vanished before it was held up
    ORDER BY record.id
    LIMIT (SELECT CASE WHEN probe_at IS NULL THEN %(batch)s ELSE 1 END FROM channel)
    FOR UPDATE OF record SKIP LOCKED
), placed AS (
    SELECT id, probe_at, row_number() OVER (ORDER BY id) - 1 AS place FROM waiting
)
UPDATE notification_records AS record
SET next_attempt_at = COALESCE(placed.probe_at, {_NOW} + placed.place / %(rate)s * interval '1 second'),
    wait_reason = CASE WHEN placed.probe_at IS NULL THEN '' ELSE record.wait_reason END,
    updated_at = {_NOW}
FROM placed
WHERE record.id = placed.id
"""  # noqa: S608  our own words

_DONE = """
UPDATE user_notification_channels SET release_at = NULL WHERE id = %(channel)s AND release_at IS NOT NULL
"""


def blocked_rows(rows: Sequence[Claimed], options: ServiceOptions, clock: Clock | None) -> dict[int, HoldReason]:
    """Return the claimed rows that must not be sent now, by record id, with the reason.

    Of a failing endpoint's rows one is let through as its probe when that is due, whoever asks first.
    """
    found: dict[int, HoldReason] = {}
    probed: dict[int, bool] = {}
    for row in rows:
        if row.channel_id is None or row.exhausted:
            continue
        if row.paused:
            found[row.record_id] = HoldReason.CHANNEL_PAUSED
        elif row.probe_in is not None:
            first = row.channel_id not in probed
            if first:
                probed[row.channel_id] = row.probe_in <= 0 and _take_probe(row.channel_id, options, clock)
            if not (first and probed[row.channel_id]):
                found[row.record_id] = HoldReason.ENDPOINT_FAILING
    return found


def record_results(group: Iterable[Settlement], options: ServiceOptions, clock: Clock | None) -> None:
    """Learn from answers what state their endpoints are in. Costs nothing while all are well."""
    by_channel: dict[int, list[Settlement]] = defaultdict(list)
    for item in group:
        if item.row.channel_id is not None:
            by_channel[item.row.channel_id].append(item)
    for channel_id, items in sorted(by_channel.items()):
        outcomes = [item.result.outcome for item in items]
        refused = next((item for item in items if _refused(item)), None)
        failed = [item for item in items if item.result.error_code in FAILING_CODES]
        if refused:
            _pause(channel_id, refused, options, clock)
        elif Outcome.SUCCESS in outcomes:
            if failed or any(item.row.failures for item in items):
                _run(_RECOVERED, channel_id, clock)
                release_held_records(channel_id, options, clock)
        elif failed:
            _note_failures(channel_id, failed, options, clock)


def resume_channel(channel_id: int, options: ServiceOptions, clock: Clock | None = None) -> bool:
    """Take a channel's endpoint for well again, because a person says so or a test got through.

    What waits for it goes out, oldest first, at RESUME_RATE. Returns whether there is such a channel.
    """
    if not _run(_RESUME, channel_id, clock):
        return False
    logger.info("channel %d resumed", channel_id, extra={"event": "channel.resumed", "channel_id": channel_id})
    release_held_records(channel_id, options, clock)
    return True


def release_held_records(channel_id: int, options: ServiceOptions, clock: Clock | None = None) -> int:
    """Let waiting records of a channel go, oldest first, as many as the rate allows for one sweep interval.

    While the endpoint is failing, one of them is made due for the next probe. Returns how many; none if another process
    has done so in this interval.
    """
    batch = max(1, round(options.resume_rate * options.sweep_interval))
    if not _run(_TAKE_TURN, channel_id, clock, interval=options.sweep_interval):
        return 0
    with connection.cursor() as cursor:
        cursor.execute(_LET_GO, _parameters(channel_id, clock, batch=batch, rate=options.resume_rate))
        released: int = cursor.rowcount
        if released < batch:
            cursor.execute(_DONE, _parameters(channel_id, clock))
    return released


def release_and_probe_channels(options: ServiceOptions, clock: Clock | None = None) -> None:
    """Let go what waits for channels that were resumed, and see that failing ones are probed. Each sweep does this."""
    with connection.cursor() as cursor:
        cursor.execute(_TO_TEND, {"now": clock() if clock else None, "interval": options.sweep_interval})
        channels = [row[0] for row in cursor.fetchall()]
    for channel_id in channels:
        release_held_records(channel_id, options, clock)


def release_and_probe_channels_if_due(options: ServiceOptions, clock: Clock | None) -> None:
    """Tend if this process has not done so for a sweep interval; every drain calls it."""
    global _tended
    with _turn:
        if time.monotonic() - _tended < options.sweep_interval:
            return
        _tended = time.monotonic()
    release_and_probe_channels(options, clock)


def _refused(item: Settlement) -> bool:
    return item.result.outcome == Outcome.PERMANENT_FAIL and item.result.error_code == ErrorCode.PROVIDER_CONFIG


def _take_probe(channel_id: int, options: ServiceOptions, clock: Clock | None) -> bool:
    return _run(_TAKE_PROBE, channel_id, clock, interval=options.probe_interval) is not None


def _pause(channel_id: int, item: Settlement, options: ServiceOptions, clock: Clock | None) -> None:
    reason = clean_text(item.result.error_message, 191)
    if not _run(_PAUSE, channel_id, clock, reason=reason, webhook_url=_address(item)):
        if _run(_BEGIN_RELEASE, channel_id, clock):  # it was mended meanwhile, unless it is paused already
            release_held_records(channel_id, options, clock)
    else:
        logger.warning(
            "channel %d paused: %s",
            channel_id,
            reason,
            extra={"event": "channel.paused", "channel_id": channel_id, "user_id": item.row.user_id, "reason": reason},
        )


def _note_failures(channel_id: int, failed: list[Settlement], options: ServiceOptions, clock: Clock | None) -> None:
    changes: dict[str, Any] = {
        "count": len(failed),
        "probe_after": PROBE_AFTER_FAILURES,
        "interval": options.probe_interval,
    }
    began = _run(_FAILED, channel_id, clock, webhook_url=_address(failed[-1]), **changes)
    if began and began[0]:
        logger.warning(
            "the endpoint of channel %d keeps failing and is only probed from now on",
            channel_id,
            extra={"event": "channel.failing", "channel_id": channel_id, "user_id": failed[-1].row.user_id},
        )
    if failed[-1].row.probe_in is not None:
        release_held_records(channel_id, options, clock)


def _address(item: Settlement) -> str:
    return item.row.endpoint.webhook_url.ciphertext if item.row.endpoint else ""


def _run(sql: str, channel_id: int, clock: Clock | None, **more: Any) -> tuple[object, ...] | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, _parameters(channel_id, clock, **more))
        row: tuple[object, ...] | None = cursor.fetchone()
    return row


def _parameters(channel_id: int, clock: Clock | None, **more: Any) -> dict[str, Any]:
    return {"channel": channel_id, "now": clock() if clock else None} | more
