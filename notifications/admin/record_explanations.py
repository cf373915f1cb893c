"""Sentences that explain a record: what its state means, the cause, what happens next, and what to do."""

from __future__ import annotations

from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.display import format_age, format_time
from notifications.clock import page_now
from notifications.content.error_messages import ERROR_MESSAGES, ERROR_REMEDIES
from notifications.content.text import escape_invisible
from notifications.models import NotificationRecord
from notifications.states import HoldReason, Status

HOLD_EXPLANATIONS: dict[str, Promise] = {
    HoldReason.CHANNEL_PAUSED: _(
        "The notification is held because the user's channel is paused. This uses no attempts. Fix the endpoint, then "
        "test or resume the channel: held notifications are sent, oldest first."
    ),
    HoldReason.ENDPOINT_FAILING: _(
        "The notification is held because the endpoint is failing and is probed with one message at a time. This uses "
        "no attempts. The notification is sent after the endpoint has recovered."
    ),
    HoldReason.RATE_LIMITED: _("The notification is held by the endpoint's rate limit. This uses no attempts."),
    HoldReason.ORDER: _(
        "The notification waits for an earlier one with the same order key. This uses no attempts. It is sent after "
        "the earlier one has been delivered, skipped or cancelled. A dead one lets it go, too, unless "
        "ORDER_AFTER_DEAD is block: then replay or cancel the dead one."
    ),
}
"""By the reason for which a record is held: the meaning, and what ends it."""

_STOPPED = (Status.DEAD, Status.SKIPPED)
_EXPLAINED_BY_LAST_ERROR = (Status.FAILED, *_STOPPED)
"""A replayed record keeps its last error until the next attempt, but that error does not explain its state."""


def explain_record(record: NotificationRecord) -> list[str]:
    """Return the sentences at the top of a record's page.

    Args:
        record: The record to explain.

    Returns:
        Translated sentences in this order: the state and what happens next, the cause, what to do.
    """
    if hold := HOLD_EXPLANATIONS.get(record.hold_reason):
        # `next_attempt_at` is the real time of the next attempt only if a rate limit set it.
        limited = record.hold_reason == HoldReason.RATE_LIMITED
        meaning = ERROR_MESSAGES.get(record.last_error_code) if record.status == Status.FAILED else None
        return [*([_describe_state(record)] if limited else []), str(hold), *([str(meaning)] if meaning else [])]
    sentences = [_describe_state(record)]
    if record.status in _EXPLAINED_BY_LAST_ERROR and (meaning := ERROR_MESSAGES.get(record.last_error_code)):
        sentences.append(str(meaning))
    remedy = _STATE_REMEDIES[Status(record.status)]
    if record.status in _STOPPED and record.expires_at and record.expires_at <= page_now():
        remedy = _("It has expired, so it cannot be replayed. Ask the sender to request it again.")
    elif record.status in _STOPPED:
        remedy = ERROR_REMEDIES.get(record.last_error_code, remedy)
    return [*sentences, *([str(remedy)] if remedy else [])]


def _describe_state(record: NotificationRecord) -> str:
    due = record.next_attempt_at is not None and record.next_attempt_at <= page_now()
    return str(_STATE_SENTENCES[Status(record.status), due]) % {
        "number": record.attempt_count,
        "allowed": record.max_attempts,
        "when": _time_and_age(record.next_attempt_at),
        "sent": _time_and_age(record.sent_at),
        "worker": _previous_worker(record) if record.status == Status.SENDING else "",
    }


def _previous_worker(record: NotificationRecord) -> str:
    """Return the worker of the last stored attempt. The name of the current worker is not stored."""
    worker = record.attempts.exclude(worker="").order_by("-round", "-number").values_list("worker", flat=True).first()
    return escape_invisible(worker) if worker else gettext("none")


_STATE_SENTENCES: dict[tuple[Status, bool], Promise] = {
    (Status.PENDING, False): _("Accepted. It will be sent at %(when)s."),
    (Status.PENDING, True): _("Accepted and due. The next available worker sends it."),
    (Status.SENDING, False): _(
        "A worker is sending attempt %(number)d of %(allowed)d. Its lease ends at %(when)s; if the worker is lost, "
        "another worker takes over then. Worker of the previous attempt: %(worker)s."
    ),
    (Status.SENDING, True): _(
        "The worker of attempt %(number)d of %(allowed)d was lost. Its lease ended at %(when)s. The next available "
        "worker takes over. Worker of the previous attempt: %(worker)s."
    ),
    (Status.FAILED, False): _(
        "Attempt %(number)d of %(allowed)d failed. The next attempt starts automatically at %(when)s."
    ),
    (Status.FAILED, True): _(
        "Attempt %(number)d of %(allowed)d failed. The next attempt is due; the next available worker sends it."
    ),
    (Status.SENT, False): _("Delivered: the endpoint accepted the message at %(sent)s. No further action follows."),
    (Status.DEAD, False): _("Not delivered. There are no further automatic attempts. Action is needed."),
    (Status.SKIPPED, False): _("Not sent on purpose. No further action follows."),
}
"""By status, and whether the next attempt is due."""

_STATE_REMEDIES: dict[Status, Promise | str] = {
    Status.PENDING: "",
    Status.SENDING: "",
    Status.SENT: "",
    Status.FAILED: _("No action is needed. If the cause is fixed, you can send the notification now."),
    Status.DEAD: _("Fix the cause, then replay the notification."),
    Status.SKIPPED: _("After the user has an enabled channel, replay the notification."),
}
"""What an operator does if the error code has no remedy."""


def _time_and_age(value: datetime | None) -> str:
    return f"{format_time(value)} ({format_age(value)})" if value else ""
