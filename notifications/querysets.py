"""Which rows: the vocabulary of selections on NotificationRecord."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from notifications.states import WAITING, ErrorCode, Status

if TYPE_CHECKING:
    from notifications.models import NotificationRecord

    Base = models.QuerySet[NotificationRecord, NotificationRecord]
else:
    Base = models.QuerySet


class NotificationQuerySet(Base):
    """Selections of notification records."""

    def replayable(self, *, force: bool = False) -> Self:
        """Return what an operator may send again.

        force: also what was sent already or called off; the reader then gets it twice or in spite of it.
        """
        again = Q(status=Status.DEAD) | Q(status=Status.SKIPPED) & ~Q(last_error_code=ErrorCode.CANCELLED)
        if force:
            again |= Q(status__in=(Status.SENT, Status.SKIPPED))
        return self.filter(again)

    def cancellable(self) -> Self:
        """Return what has not gone out and is in nobody's hands."""
        return self.filter(status__in=WAITING)

    def deferred(self) -> Self:
        """Return what waits for a later time: a schedule of its own, or the end of a backoff."""
        return self.filter(status__in=WAITING, next_attempt_at__gt=Now())

    def by_status(self) -> dict[str, int]:
        """Return the number of records per status."""
        rows: Any = self.order_by().values_list("status").annotate(models.Count("id"))
        return dict(rows)
