"""Which rows: the vocabulary of selections on NotificationRecord."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from django.contrib.auth import get_user_model
from django.db import connection, models
from django.db.models import Q
from django.db.models.functions import Now

from notifications.states import CLAIMABLE, ErrorCode, Status

Record = TypeVar("Record", bound=models.Model, covariant=True)

LONGEST_NUMBER = 19
"""Digits of a number no column can hold."""


class NotificationQuerySet(models.QuerySet[Record, Record]):
    """Selections of notification records."""

    def replayable(self, *, force: bool = False) -> Self:
        """Return what an operator may send again.

        force: also what was sent already or called off; the reader then gets it twice or in spite of it.
        """
        again = Q(status=Status.DEAD) | Q(status=Status.SKIPPED) & ~Q(last_error_code=ErrorCode.CANCELLED)
        if force:
            again |= Q(status__in=(Status.SENT, Status.SKIPPED))
        return self.filter(again)

    def found_by(self, term: str) -> Self:
        """Return what the search box finds: whole values only, each with an index, however many records there are."""
        users = get_user_model()._default_manager
        owners = list(users.filter(**{get_user_model().USERNAME_FIELD: term}).values_list("pk", flat=True))
        found = Q(dedupe_key=term) | Q(trace_id=term) | Q(user_id__in=owners)
        if term.isascii() and term.isdigit() and len(term) < LONGEST_NUMBER:
            found |= Q(pk=int(term))
            if int(term) <= max_user_id():
                found |= Q(user_id=int(term))
        return self.filter(found)

    def cancellable(self) -> Self:
        """Return what has not gone out and is in nobody's hands."""
        return self.filter(status__in=CLAIMABLE)

    def deferred(self) -> Self:
        """Return what waits for a later time: a schedule of its own, or the end of a backoff."""
        return self.filter(status__in=CLAIMABLE, next_attempt_at__gt=Now())

    def by_status(self) -> dict[str, int]:
        """Return the number of records per status."""
        rows: Any = self.order_by().values_list("status").annotate(models.Count("id"))
        return dict(rows)


def max_user_id() -> int:
    """Return the largest key the user table can hold."""
    key = get_user_model()._meta.pk
    return connection.ops.integer_field_range(key.get_internal_type())[1] or models.BigIntegerField.MAX_BIGINT
