"""The selections of notification records that admin, service and replay share."""

from __future__ import annotations

from typing import Any, Self, TypeVar

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models, router
from django.db.models import Exists, ExpressionWrapper, OuterRef, Q
from django.db.models.functions import Now

from notifications.conf import service_options
from notifications.conf.options import BLOCK
from notifications.states import CLAIMABLE, ErrorCode, HoldReason, Status
from notifications.user_keys import UserKey, to_user_key

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


def inactive_users(user_ids: set[UserKey]) -> set[UserKey]:
    """Return which of the users have `is_active = False`. A user model without that column has no such user.

    The base manager is asked, because a project's own manager may hide inactive users.
    """
    model = get_user_model()
    if not user_ids or "is_active" not in {field.name for field in model._meta.get_fields()}:
        return set()
    users = model._base_manager.using(router.db_for_write(model))
    keys: Any = user_ids  # of whichever kind the user model has
    return set(users.filter(pk__in=keys, is_active=False).values_list("pk", flat=True))


EXPIRED = Q(expires_at__lte=Now())

LISTED = Q(round__gte=0)
"""True of every record. The indexes `notification_by_...` have this condition, so PostgreSQL uses them only for a query
that names it, which is the admin's list. For the batches of a replay it would prefer them to the index that has their
order, because it underestimates how many records they select."""


class EndpointQuerySet(models.QuerySet[Record, Record]):
    """Selections of endpoints."""

    def of_record(self, record: Any) -> Self:
        """Return the endpoint of a record: the one that it names, else the user's on its channel without a label.

        Args:
            record: A notification record.
        """
        if record.endpoint_id is not None:
            return self.filter(pk=record.endpoint_id)
        return self.filter(user_id=record.user_id, channel=record.channel, label="")

    def of_outer_record(self) -> Self:
        """Return the same for the record of the query that has this one as a subquery."""
        named = ExpressionWrapper(OuterRef("endpoint_id"), output_field=models.BigIntegerField())
        of_user = Q(user_id=OuterRef("user_id"), channel=OuterRef("channel"), label="", named__isnull=True)
        return self.annotate(named=named).filter(Q(pk=OuterRef("endpoint_id")) | of_user)


def endpoint_blocked() -> Exists:
    """Return the condition that a record's endpoint is paused, or failing and not to be probed yet."""
    endpoints: Any = apps.get_model("notifications", "UserNotificationChannel").objects
    return Exists(endpoints.of_outer_record().filter(Q(paused_at__isnull=False) | Q(probe_at__gt=Now())))


class NotificationQuerySet(models.QuerySet[Record, Record]):
    """Selections of notification records."""

    def replayable(self, *, force: bool = False, expired: bool = False) -> Self:
        """Return the records that an operator may replay: dead ones, and skipped ones that were not cancelled.

        An expired record is not among them: it would be skipped again at once.

        Args:
            force: Also sent and cancelled records. The recipient then gets a sent message twice.
            expired: Return those that are left out because they have expired, instead.
        """
        allowed = Q(status=Status.DEAD) | Q(status=Status.SKIPPED) & ~Q(last_error_code=ErrorCode.CANCELLED)
        if force:
            allowed |= Q(status__in=(Status.SENT, Status.SKIPPED))
        return self.filter(allowed).filter(EXPIRED) if expired else self.filter(allowed).exclude(EXPIRED)

    def search(self, term: str) -> Self:
        """Return the records that the search box finds: exact values of indexed columns, as the table is large.

        Args:
            term: A dedupe key, the key of a message, a trace id, a user name, a record id or a user id.
        """
        owners = list(primary_users().filter(**{get_user_model().USERNAME_FIELD: term}).values_list("pk", flat=True))
        condition = Q(dedupe_key=term) | Q(request_key=term) | Q(trace_id=term) | Q(user_id__in=owners)
        if term.isascii() and term.isdigit() and len(term) < BIGINT_OVERFLOW_DIGITS:
            condition |= Q(pk=int(term))
        if (key := to_user_key(term)) is not None:
            condition |= Q(user_id=key)
        return self.filter(condition)

    def of_endpoint(self, endpoint: Any) -> Self:
        """Return the records of an endpoint; see `EndpointQuerySet.of_record`.

        Args:
            endpoint: A row of UserNotificationChannel.
        """
        named = Q(endpoint_id=endpoint.pk)
        if endpoint.label or endpoint.user_id is None:
            return self.filter(named)
        return self.filter(named | Q(endpoint_id__isnull=True, user_id=endpoint.user_id, channel=endpoint.channel))

    def cancellable(self) -> Self:
        """Return the records that an operator may cancel: those that wait and have no lease.

        Dead ones that block their order key are among them.
        """
        allowed = Q(status__in=CLAIMABLE)
        if service_options().order_after_dead == BLOCK:
            allowed |= Q(status=Status.DEAD) & ~Q(order_key="")
        return self.filter(allowed)

    def deferred(self) -> Self:
        """Return the records that wait for a later time and could be sent now.

        A record that has expired, whose endpoint is paused or not probed yet, or that waits for an earlier one of its
        order key could not: the next claim would skip it or hold it again.
        """
        waiting = self.filter(status__in=CLAIMABLE, next_attempt_at__gt=Now()).exclude(hold_reason=HoldReason.ORDER)
        return waiting.exclude(EXPIRED).exclude(endpoint_blocked())

    def blocked_by_order(self) -> Self:
        """Return the records that wait for an earlier one of their order key."""
        return self.filter(hold_reason=HoldReason.ORDER, status__in=CLAIMABLE)

    def expired(self) -> Self:
        """Return the records that are too late to be sent."""
        return self.filter(EXPIRED)

    def blocked_by_endpoint(self) -> Self:
        """Return the waiting records whose endpoint is paused, or failing and not to be probed yet."""
        return self.filter(endpoint_blocked(), status__in=CLAIMABLE)

    def by_status(self) -> dict[str, int]:
        """Return the number of records per status."""
        rows: Any = self.order_by().values_list("status").annotate(models.Count("id"))
        return dict(rows)
