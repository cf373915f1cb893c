"""The closed sets of words in the tables: statuses, outcomes, causes, error codes and kinds."""

from __future__ import annotations

import enum

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """The status of a record. The database refuses any other value. docs/design.md has the transitions."""

    PENDING = "pending", _("pending")
    """Accepted. It waits for its first send or for its scheduled time."""
    SENDING = "sending", _("sending")
    """Claimed by a worker under a lease."""
    SENT = "sent", _("sent")
    """The provider accepted the message."""
    FAILED = "failed", _("waiting to retry")
    """The last attempt failed. The next attempt is scheduled."""
    DEAD = "dead", _("dead, action needed")
    """It is not retried. An operator can replay it."""
    SKIPPED = "skipped", _("skipped")
    """Not sent on purpose: no recipient, channel switched off, cancelled or expired."""


CLAIMABLE = (Status.PENDING, Status.FAILED)
"""No worker holds a record in these statuses. A claim or an operator may change it."""

SCHEDULED = (Status.PENDING, Status.SENDING, Status.FAILED)
"""A record in these statuses has `next_attempt_at`."""

FINAL = (Status.SENT, Status.DEAD, Status.SKIPPED)
"""A record in these statuses has no `next_attempt_at`, and no worker changes it."""

UNDELIVERED = (Status.DEAD, Status.SKIPPED)
"""Final statuses of records that were not delivered. A replay takes these."""


class Priority(models.IntegerChoices):
    """How urgent a record is. It decides only whose turn comes first while more is due than can be sent."""

    LOW = 0, _("low")
    NORMAL = 1, _("normal")
    HIGH = 2, _("high")
    URGENT = 3, _("urgent")


class Outcome(models.TextChoices):
    """The outcome of one attempt."""

    SUCCESS = "success", _("delivered")
    TEMPORARY_FAIL = "temporary_fail", _("temporary failure")
    PERMANENT_FAIL = "permanent_fail", _("permanent failure")
    SKIPPED = "skipped", _("not sent on purpose")
    LOST = "lost", _("worker lost, the message may have been delivered")


class Cause(models.TextChoices):
    """The reason why an attempt was made."""

    EVENT = "event", _("first send")
    SWEEP = "sweep", _("scheduled retry")
    REPLAY = "replay", _("replay by an operator")
    RECOVERY = "recovery", _("recovery after a lost worker")


class HoldReason(models.TextChoices):
    """The reason why a due record is held. A held record uses no attempt."""

    NONE = "", _("not held")
    CHANNEL_PAUSED = "channel_paused", _("the channel is paused")
    ENDPOINT_FAILING = "endpoint_failing", _("the endpoint is failing and is being probed")
    RATE_LIMITED = "rate_limited", _("the endpoint's rate limit")
    ORDER = "order", _("an earlier message of its order key")


HELD_BY_ENDPOINT = (HoldReason.CHANNEL_PAUSED, HoldReason.ENDPOINT_FAILING)
"""The reasons that end when the endpoint has recovered."""


class Measure(models.TextChoices):
    """What a counter counts."""

    ATTEMPTS = "attempts", _("attempts")
    """Attempts by outcome and error code. The histogram holds the seconds that the endpoint took."""
    DELIVERIES = "deliveries", _("deliveries")
    """Records that became final, by status and number of attempts. The histogram holds seconds since the request."""
    REPLAYS = "replays", _("replays")
    """The same for records that were replayed. Their seconds since the request are not comparable."""


class ErrorCode(enum.StrEnum):
    """Stable error codes. The first eight are those of the Go service."""

    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_RATE_LIMITED = "provider_rate_limited"
    PROVIDER_5XX = "provider_5xx"
    NETWORK_ERROR = "network_error"
    RECIPIENT_MISSING = "recipient_missing"
    INVALID_URL = "invalid_url"
    PROVIDER_AUTH_FAILED = "provider_auth_failed"
    PAYLOAD_INVALID = "payload_invalid"
    PROVIDER_CONFIG = "provider_config"
    """The endpoint must be corrected by its owner: bot removed, wrong signature, address not allowed."""
    PROVIDER_UNMAPPED = "provider_unmapped"
    """The provider answered with a code that is not in its table. The message is retried a few times."""
    LEASE_EXPIRED = "lease_expired"
    """The worker of the last attempt stopped before it stored a result. The message may have arrived."""
    USER_INACTIVE = "user_inactive"
    """The user's `is_active` is false, and INACTIVE_USERS is "skip"."""
    CANCELLED = "cancelled"
    """An operator or the producer cancelled it."""
    EXPIRED = "expired"
    """It expired before it could be sent."""
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    """No attempt was left when the record was claimed."""
    INTERNAL_ERROR = "internal_error"
    """The provider raised an unexpected exception, which is a bug. The message is retried."""


class TextReplaced(models.TextChoices):
    """Why another text is stored than the one that the caller gave."""

    EXTERNAL_LINK = "external_link", _("it contains a link to another site")
    INVISIBLE = "invisible", _("it has no visible character")
    TOO_LONG = "too_long", _("it is longer than SUMMARY_MAX_RUNES")


class HeartbeatKind(models.TextChoices):
    """The kind of process that writes a heartbeat."""

    BEAT = "beat", _("beat")
    """A sweep that beat requested has reached a worker."""
    SWEEP = "sweep", _("sweep")
    """A sweep, requested by beat or run by `deliver_due`, has finished."""
    WORKER = "worker", _("worker process")
    """A slot of a worker process took work, so the process is not stuck."""
    TASK = "task", _("periodic task")
    """A worker took a message of a periodic task."""


class AlertKind(models.TextChoices):
    """The kind of an alert."""

    DEAD = "dead", _("notifications became dead")
    PAUSED = "paused", _("channels were paused")
    LATE = "late", _("a notification is overdue")
    SWEEP = "sweep", _("sweeps are missing")
    REJECTED = "rejected", _("requests were rejected")
    WORKERS = "workers", _("no worker is running")
    BEAT = "beat", _("beat is silent")
    REDIS = "redis", _("Redis does not answer")
    MIGRATIONS = "migrations", _("migrations are not applied")


class OperationStatus(models.TextChoices):
    """The status of a replay operation."""

    QUEUED = "queued", _("queued")
    """Created. No batch has run yet."""
    RUNNING = "running", _("running")
    DONE = "done", _("done")
    CANCELLED = "cancelled", _("cancelled")
    """An operator stopped it. Records that it had replayed by then stay replayed."""
    FAILED = "failed", _("stopped by an error")
    """An unexpected exception, which is a bug, stopped it."""


UNFINISHED = (OperationStatus.QUEUED, OperationStatus.RUNNING)
"""An operation in these statuses has `next_batch_at`."""


class TestStatus(models.TextChoices):
    """The result of the last test message to a channel."""

    __test__ = False  # pytest would take the class for a test

    NEVER = "", _("never tested")
    SUCCESS = "success", _("succeeded")
    FAILED = "failed", _("failed")


class AuthType(models.TextChoices):
    """How a request to a webhook is authenticated."""

    NONE = "none", _("no authentication")
    BEARER = "bearer", _("bearer token")
    SIGNATURE = "signature", _("signing secret")
