"""Named selections of records by their current state, such as "due" or "scheduled".

The overview counts these selections and links to the list of records, which filters by the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from notifications.conf import service_options
from notifications.states import HELD_BY_ENDPOINT, SCHEDULED, HoldReason, Status

if TYPE_CHECKING:
    from notifications.models import NotificationRecord

    Records = QuerySet[NotificationRecord]

DAY = timedelta(days=1)
DUE_ORDER = ("next_attempt_at", "id")
"""The order of the index on due records."""
DEAD_ORDER = ("-updated_at", "-id")
"""The reverse order of the index on dead records."""


@dataclass(frozen=True, slots=True)
class CurrentState:
    """A selection of records that one index can answer.

    Attributes:
        label: The name shown to operators.
        order: The ordering of the index that answers the selection.
    """

    label: Promise
    order: tuple[str, str]

    def filter(self, records: Records, name: str) -> Records:
        """Return the records in this state, ordered as the index is.

        Args:
            records: The records to select from.
            name: The key of this state in `CURRENT_STATES`.
        """
        return records.filter(_condition(name)).order_by(*self.order)


CURRENT_STATES = {
    "due": CurrentState(_("due"), DUE_ORDER),
    "vanished": CurrentState(_("due, worker lost"), DUE_ORDER),
    "sending": CurrentState(_("being sent"), DUE_ORDER),
    "retry": CurrentState(_("waiting to retry"), DUE_ORDER),
    "scheduled": CurrentState(_("scheduled"), DUE_ORDER),
    "held": CurrentState(_("held, channel paused or failing"), DUE_ORDER),
    "limited": CurrentState(_("held by a rate limit"), DUE_ORDER),
    "ordered": CurrentState(_("waiting for an earlier message of their order key"), DUE_ORDER),
    "dead": CurrentState(_("dead in the last 24 hours"), DEAD_ORDER),
}
"""By the value of the URL parameter `now`. The keys are part of saved links and must not change."""


def _condition(name: str) -> Q:
    options = service_options()
    # No lease and no retry delay is longer than this, so the index scan can stop there.
    longest_delay = timedelta(seconds=max(options.lease, options.retry_max_delay, options.retry_after_max))
    future, soon = Q(next_attempt_at__gt=Now()), Q(next_attempt_at__lte=Now() + longest_delay)
    conditions = {
        "due": Q(next_attempt_at__lte=Now()),
        "vanished": Q(next_attempt_at__lte=Now(), status=Status.SENDING),
        "sending": future & soon & Q(status=Status.SENDING, hold_reason=""),
        "retry": future & soon & Q(status=Status.FAILED, hold_reason=""),
        "scheduled": future & Q(status=Status.PENDING, hold_reason=""),
        "held": future & Q(hold_reason__in=HELD_BY_ENDPOINT, status__in=SCHEDULED),
        "limited": future & Q(hold_reason=HoldReason.RATE_LIMITED, status__in=SCHEDULED),
        "ordered": future & Q(hold_reason=HoldReason.ORDER, status__in=SCHEDULED),
        "dead": Q(status=Status.DEAD, updated_at__gt=Now() - DAY),
    }
    return conditions[name]
