"""Plain sentences: what a record's state means, what happens next, and what an error code stands for."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.display import absolute, relative
from notifications.models import NotificationRecord
from notifications.states import ErrorCode, Status

CODES: dict[str, Promise] = {
    ErrorCode.PROVIDER_TIMEOUT: _("The endpoint did not answer in time; it may have taken the message all the same."),
    ErrorCode.PROVIDER_RATE_LIMITED: _("The endpoint asked us to slow down."),
    ErrorCode.PROVIDER_5XX: _("The endpoint had an error of its own."),
    ErrorCode.NETWORK_ERROR: _("The endpoint could not be reached."),
    ErrorCode.RECIPIENT_MISSING: _("The user has no such channel, or it is switched off."),
    ErrorCode.INVALID_URL: _("The webhook address is not one we may call; it has to be entered again."),
    ErrorCode.PROVIDER_AUTH_FAILED: _("The endpoint refused our authentication; the bearer token may be wrong."),
    ErrorCode.PAYLOAD_INVALID: _("The endpoint refused the message itself; it will refuse the same message again."),
    ErrorCode.PROVIDER_CONFIG: _(
        "The endpoint needs a person: bot removed, flow switched off, our address not allowed, or its stored address "
        "cannot be read."
    ),
    ErrorCode.PROVIDER_UNMAPPED: _("The endpoint answered with a code we have no meaning for."),
    ErrorCode.LEASE_EXPIRED: _("The worker of the last attempt vanished; the message may have arrived."),
    ErrorCode.CANCELLED: _("An operator or the producer called it off."),
    ErrorCode.ATTEMPTS_EXHAUSTED: _("No attempt was left in its budget."),
    ErrorCode.INTERNAL_ERROR: _("A bug on our side; the worker's log tells more."),
}
"""A provider may bring codes of its own; those are shown without a sentence."""


_STOPPED_BY = (Status.FAILED, Status.DEAD, Status.SKIPPED)
"""What the last error still speaks of; a replayed record keeps it until the next attempt."""


def explain(record: NotificationRecord) -> list[str]:
    """Return the sentences that stand at the top of a record's page."""
    sentences = [_state(record)]
    if record.status in _STOPPED_BY and (meaning := CODES.get(record.last_error_code)):
        sentences.append(str(meaning))
    if advice := _advice(record):
        sentences.append(advice)
    return sentences


def _state(record: NotificationRecord) -> str:
    facts = {
        "number": record.attempt_count,
        "allowed": record.max_attempts,
        "when": _when(record.next_attempt_at),
        "sent": _when(record.sent_at),
    }
    due = record.next_attempt_at is not None and record.next_attempt_at <= timezone.now()
    return str(_SENTENCES[Status(record.status), due]) % facts


_SENTENCES: dict[tuple[Status, bool], Promise] = {
    (Status.PENDING, False): _("Accepted; it goes out at %(when)s."),
    (Status.PENDING, True): _("Accepted and due; the next free worker sends it."),
    (Status.SENDING, False): _(
        "A worker sends attempt %(number)d of %(allowed)d; if it vanishes, another takes over at %(when)s."
    ),
    (Status.SENDING, True): _(
        "The worker of attempt %(number)d of %(allowed)d vanished; the next free one takes over."
    ),
    (Status.FAILED, False): _("Attempt %(number)d of %(allowed)d failed. It is tried again by itself at %(when)s."),
    (Status.FAILED, True): _(
        "Attempt %(number)d of %(allowed)d failed. It is due again; the next free worker sends it."
    ),
    (Status.SENT, False): _("Delivered: the endpoint took it at %(sent)s. Nothing more happens."),
    (Status.DEAD, False): _("Not delivered, and it will not be tried again by itself. It needs a person."),
    (Status.SKIPPED, False): _("Not sent, on purpose. Nothing more happens."),
}
"""By status, and whether its time has come."""


def _advice(record: NotificationRecord) -> str:
    if record.status == Status.DEAD and record.last_error_code == ErrorCode.LEASE_EXPIRED:
        return gettext("Find out whether it arrived; replay it if it did not.")
    if record.status == Status.DEAD:
        return gettext("Remove the cause, then replay it.")
    if record.status == Status.SKIPPED and record.last_error_code != ErrorCode.CANCELLED:
        return gettext("Once the user can be reached, it can be replayed.")
    return ""


def _when(value: datetime | None) -> str:
    return f"{absolute(value)} ({relative(value)})" if value else ""
