"""Plain sentences: what a record's state means, what happens next, what an error code stands for, what to do."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _

from notifications.admin.display import format_age, format_time
from notifications.content.error_messages import ERROR_MESSAGES, ERROR_REMEDIES
from notifications.content.text import escape_invisible
from notifications.models import NotificationRecord
from notifications.states import HoldReason, Status

HOLD_EXPLANATIONS: dict[str, Promise] = {
    HoldReason.CHANNEL_PAUSED: _(
        "It waits because the user's channel is paused, and spends no attempt meanwhile. Mend the endpoint, then test "
        "or resume the channel: what waits goes out, oldest first."
    ),
    HoldReason.ENDPOINT_FAILING: _(
        "It waits because the endpoint keeps failing and is tried with one message at a time. It spends no attempt, "
        "and goes out once the endpoint works again."
    ),
    HoldReason.RATE_LIMITED: _("It waits for the endpoint's rate limit, and spends no attempt meanwhile."),
}
"""Why it is held up, and what ends that."""

_STOPPED = (Status.DEAD, Status.SKIPPED)
"""What is not sent again unless somebody does something."""

_STOPPED_BY = (Status.FAILED, *_STOPPED)
"""What the last error still speaks of; a replayed record keeps it until the next attempt."""


def explain_record(record: NotificationRecord) -> list[str]:
    """Return the sentences that stand at the top of a record's page: why, what happens next, what to do."""
    if waits := HOLD_EXPLANATIONS.get(record.hold_reason):
        # The time of its next attempt is a promise only where a limit made it; else it waits for its endpoint.
        limited = record.hold_reason == HoldReason.RATE_LIMITED
        why = ERROR_MESSAGES.get(record.last_error_code) if record.status == Status.FAILED else None
        return [*([_state(record)] if limited else []), str(waits), *([str(why)] if why else [])]
    sentences = [_state(record)]
    if record.status in _STOPPED_BY and (meaning := ERROR_MESSAGES.get(record.last_error_code)):
        sentences.append(str(meaning))
    if record.status in _STOPPED:
        remedy = ERROR_REMEDIES.get(record.last_error_code, _ADVICE[Status(record.status)])
    else:
        remedy = _ADVICE[Status(record.status)]
    return [*sentences, *([str(remedy)] if remedy else [])]


def _state(record: NotificationRecord) -> str:
    due = record.next_attempt_at is not None and record.next_attempt_at <= timezone.now()
    return str(_SENTENCES[Status(record.status), due]) % {
        "number": record.attempt_count,
        "allowed": record.max_attempts,
        "when": _when(record.next_attempt_at),
        "sent": _when(record.sent_at),
        "worker": _last_worker(record) if record.status == Status.SENDING else "",
    }


def _last_worker(record: NotificationRecord) -> str:
    """Return who made the last attempt that was written down; a lease names nobody."""
    worker = record.attempts.exclude(worker="").order_by("-round", "-number").values_list("worker", flat=True).first()
    return escape_invisible(worker) if worker else gettext("none so far")


_SENTENCES: dict[tuple[Status, bool], Promise] = {
    (Status.PENDING, False): _("Accepted; it goes out at %(when)s."),
    (Status.PENDING, True): _("Accepted and due; the next free worker sends it."),
    (Status.SENDING, False): _(
        "A worker sends attempt %(number)d of %(allowed)d. It has it until %(when)s; if it vanishes, another takes "
        "over then. Worker of the attempt before: %(worker)s."
    ),
    (Status.SENDING, True): _(
        "The worker of attempt %(number)d of %(allowed)d vanished; the next free one takes over. Its time ended at "
        "%(when)s. Worker of the attempt before: %(worker)s."
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

_ADVICE: dict[Status, Promise | str] = {
    Status.PENDING: "",
    Status.SENDING: "",
    Status.SENT: "",
    Status.FAILED: _("Nothing to do; who knows that the cause is gone may send it now."),
    Status.DEAD: _("Remove the cause, then replay it."),
    Status.SKIPPED: _("Once the user can be reached, it can be replayed."),
}
"""What a person does where the error code says nothing of it."""


def _when(value: datetime | None) -> str:
    return f"{format_time(value)} ({format_age(value)})" if value else ""
