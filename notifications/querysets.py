"""The selections of notification records that admin, service and replay share."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connection, models, router
from django.db.models import Q
from django.db.models.functions import Now

from notifications.states import CLAIMABLE, ErrorCode, Status

Record = TypeVar("Record", bound=models.Model, covariant=True)

BIGINT_OVERFLOW_DIGITS = 19
"""A number with this many digits may not fit into a bigint column."""


class PrimaryManager(models.Manager[Record]):
    """Reads rows from the database that they are written to.

    A project's router may read from a replica. A replica lags, so a row that was just written would be missing there.
    """

    def get_queryset(self) -> models.QuerySet[Record]:
        """Return the rows of the primary database, unless `using()` named another one."""
        rows = super().get_queryset()
        return rows if self._db else rows.using(router.db_for_write(self.model))


def primary_users() -> models.QuerySet[AbstractBaseUser]:
    """Return the project's users, from the database that they are written to."""
    model = get_user_model()
    return model._default_manager.using(router.db_for_write(model))


class NotificationQuerySet(models.QuerySet[Record, Record]):
    """Selections of notification records."""

    def replayable(self, *, force: bool = False) -> Self:
        """Return the records that an operator may replay: dead ones, and skipped ones that were not cancelled.

        Args:
            force: Also sent and cancelled records. The recipient then gets a sent message twice.
        """
        allowed = Q(status=Status.DEAD) | Q(status=Status.SKIPPED) & ~Q(last_error_code=ErrorCode.CANCELLED)
        if force:
            allowed |= Q(status__in=(Status.SENT, Status.SKIPPED))
        return self.filter(allowed)

    def search(self, term: str) -> Self:
        """Return the records that the search box finds: exact values of indexed columns, as the table is large.

        Args:
            term: A dedupe key, a trace id, a user name, a record id or a user id.
        """
        owners = list(primary_users().filter(**{get_user_model().USERNAME_FIELD: term}).values_list("pk", flat=True))
        condition = Q(dedupe_key=term) | Q(trace_id=term) | Q(user_id__in=owners)
        if term.isascii() and term.isdigit() and len(term) < BIGINT_OVERFLOW_DIGITS:
            condition |= Q(pk=int(term))
            if int(term) <= max_user_id():
                condition |= Q(user_id=int(term))
        return self.filter(condition)

    def cancellable(self) -> Self:
        """Return the records that an operator may cancel: those that wait and have no lease."""
        return self.filter(status__in=CLAIMABLE)

    def deferred(self) -> Self:
        """Return the records that wait for a later time: a scheduled send, the end of a backoff or of a hold."""
        return self.filter(status__in=CLAIMABLE, next_attempt_at__gt=Now())

    def by_status(self) -> dict[str, int]:
        """Return the number of records per status."""
        rows: Any = self.order_by().values_list("status").annotate(models.Count("id"))
        return dict(rows)


def max_user_id() -> int:
    """Return the largest primary key that the user table can hold."""
    key = get_user_model()._meta.pk
    return connection.ops.integer_field_range(key.get_internal_type())[1] or models.BigIntegerField.MAX_BIGINT
