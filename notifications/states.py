"""The words of a notification's life: statuses, outcomes, causes and error codes."""

from __future__ import annotations

import enum

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """Where a record stands. The database refuses any other value; docs/design.md draws the edges."""

    PENDING = "pending", _("pending")
    """Accepted, waiting for its first send (or its scheduled time)."""
    SENDING = "sending", _("sending")
    """Claimed by a worker under a lease."""
    SENT = "sent", _("sent")
    """The provider took the message."""
    FAILED = "failed", _("waiting to retry")
    """Not taken; the next attempt is scheduled."""
    DEAD = "dead", _("dead, action needed")
    """Will not be tried again unless somebody replays it."""
    SKIPPED = "skipped", _("skipped")
    """Not to be sent: no recipient, switched off, or cancelled."""


WAITING = (Status.PENDING, Status.FAILED)
"""Nobody holds these; a claim or an operator may take them."""

SCHEDULED = (Status.PENDING, Status.SENDING, Status.FAILED)
"""These carry `next_attempt_at`."""

FINAL = (Status.SENT, Status.DEAD, Status.SKIPPED)
"""These do not, and no worker touches them."""


UNDELIVERED = (Status.DEAD, Status.SKIPPED)
"""Final without having been delivered: what a replay is for."""


class Outcome(models.TextChoices):
    """What one attempt came to."""

    SUCCESS = "success", _("delivered")
    TEMPORARY_FAIL = "temporary_fail", _("temporary failure")
    PERMANENT_FAIL = "permanent_fail", _("permanent failure")
    SKIPPED = "skipped", _("not sent on purpose")
    LOST = "lost", _("worker lost, the message may have been delivered")


class Cause(models.TextChoices):
    """Why an attempt was made."""

    EVENT = "event", _("first send")
    SWEEP = "sweep", _("scheduled retry")
    REPLAY = "replay", _("replay by an operator")
    RECOVERY = "recovery", _("recovery after a lost worker")


class WaitReason(models.TextChoices):
    """Why a record waits though its own turn has come. Waiting spends no attempt."""

    NONE = "", _("not held")
    CHANNEL_PAUSED = "channel_paused", _("the channel is paused")
    ENDPOINT_FAILING = "endpoint_failing", _("the endpoint is failing and is being probed")
    RATE_LIMITED = "rate_limited", _("the endpoint's rate limit")


class Measure(models.TextChoices):
    """What a tally counts."""

    ATTEMPTS = "attempts", _("attempts")
    """Attempts by outcome and error code; the histogram is of the seconds that the endpoint took."""
    DELIVERIES = "deliveries", _("deliveries")
    """Records that became final, by status and number of attempts; of the seconds since they were requested."""
    REPLAYS = "replays", _("replays")
    """The same for records that had been replayed, whose seconds since the request mean nothing."""


class ErrorCode(enum.StrEnum):
    """Stable machine words for what went wrong; the first eight are the Go service's."""

    PROVIDER_TIMEOUT = "provider_timeout"
    PROVIDER_RATE_LIMITED = "provider_rate_limited"
    PROVIDER_5XX = "provider_5xx"
    NETWORK_ERROR = "network_error"
    RECIPIENT_MISSING = "recipient_missing"
    INVALID_URL = "invalid_url"
    PROVIDER_AUTH_FAILED = "provider_auth_failed"
    PAYLOAD_INVALID = "payload_invalid"
    PROVIDER_CONFIG = "provider_config"
    """The endpoint itself needs a person: bot removed, wrong signature, address not allowed."""
    PROVIDER_UNMAPPED = "provider_unmapped"
    """The provider answered with a code we have no meaning for; retried a few times."""
    LEASE_EXPIRED = "lease_expired"
    """The worker of the last attempt vanished; the message may have arrived."""
    CANCELLED = "cancelled"
    """An operator or the producer called it off."""
    EXPIRED = "expired"
    """Its time was over before it could be sent."""
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    """Nothing left of the budget before the attempt could start."""
    INTERNAL_ERROR = "internal_error"
    """A provider raised something unexpected: a bug on our side; retried."""


class Pulse(models.TextChoices):
    """What has a heartbeat."""

    BEAT = "beat", _("beat")
    """A sweep that beat asked for has reached a worker."""
    SWEEP = "sweep", _("sweep")
    """A sweep, of beat or of `deliver_due`, has come to its end."""
    WORKER = "worker", _("worker process")
    """A slot of a worker process took work."""


class AlertKind(models.TextChoices):
    """What a person is told about."""

    DEAD = "dead", _("notifications became dead")
    PAUSED = "paused", _("channels were paused")
    LATE = "late", _("a notification is overdue")
    SWEEP = "sweep", _("sweeps are missing")
    REJECTED = "rejected", _("requests were rejected")


class OperationStatus(models.TextChoices):
    """Where a replay operation stands."""

    QUEUED = "queued", _("queued")
    """Created; no batch was run yet."""
    RUNNING = "running", _("running")
    DONE = "done", _("done")
    CANCELLED = "cancelled", _("cancelled")
    """Somebody stopped it; what it had replayed by then stays replayed."""
    FAILED = "failed", _("stopped by an error")
    """A bug on our side stopped it."""


UNFINISHED = (OperationStatus.QUEUED, OperationStatus.RUNNING)
"""These carry `next_batch_at`."""


class TestStatus(models.TextChoices):
    """Result of the last test message to a user's channel."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    NEVER = "", _("never tested")
    SUCCESS = "success", _("succeeded")
    FAILED = "failed", _("failed")


class AuthType(models.TextChoices):
    """How a webhook wants to be called."""

    NONE = "none", _("no authentication")
    BEARER = "bearer", _("bearer token")
    SIGNATURE = "signature", _("signing secret")
