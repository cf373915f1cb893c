"""Where records stand right now, by name: what the overview counts is what the list shows behind its links."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.translation import gettext, gettext_lazy as _

from notifications.conf import service_options
from notifications.states import Status

if TYPE_CHECKING:
    from notifications.models import NotificationRecord

    Records = QuerySet[NotificationRecord]

DAY = timedelta(days=1)
BY_TIME = ("next_attempt_at", "id")
"""The order of the due index."""
LATEST_FIRST = ("-updated_at", "-id")
"""The order of the index of the dead, backwards."""


@dataclass(frozen=True, slots=True)
class CurrentState:
    """A selection of records that an index finds, and the order that this index has."""

    label: Promise
    order: tuple[str, str]

    def of(self, records: Records, name: str) -> Records:
        """Return the records that are in it, in its order."""
        return records.filter(_condition(name)).order_by(*self.order)


CURRENT_STATES = {
    "due": CurrentState(_("due"), BY_TIME),
    "vanished": CurrentState(_("due, their worker vanished"), BY_TIME),
    "sending": CurrentState(_("in flight"), BY_TIME),
    "retry": CurrentState(_("failed, waiting for the next attempt"), BY_TIME),
    "scheduled": CurrentState(_("scheduled for later"), BY_TIME),
    "dead": CurrentState(_("dead in the last 24 hours"), LATEST_FIRST),
}


def _condition(name: str) -> Q:
    """Return the condition of a situation."""
    options = service_options()
    # No lease and no backoff is longer; so what is scheduled further ahead is not read.
    longest = timedelta(seconds=max(options.lease, options.retry_max_delay, options.retry_after_max))
    ahead, soon = Q(next_attempt_at__gt=Now()), Q(next_attempt_at__lte=Now() + longest)
    conditions = {
        "due": Q(next_attempt_at__lte=Now()),
        "vanished": Q(next_attempt_at__lte=Now(), status=Status.SENDING),
        "sending": ahead & soon & Q(status=Status.SENDING),
        "retry": ahead & soon & Q(status=Status.FAILED),
        "scheduled": ahead & Q(status=Status.PENDING),
        "dead": Q(status=Status.DEAD, updated_at__gt=Now() - DAY),
    }
    return conditions[name]


class CurrentStateFilter(admin.SimpleListFilter):
    """Where records stand right now."""

    title = _("situation")
    parameter_name = "now"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the situations."""
        return [(name, str(situation.label)) for name, situation in CURRENT_STATES.items()]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records in this situation."""
        name = self.value() or ""
        return CURRENT_STATES[name].of(queryset, name) if name in CURRENT_STATES else queryset


class SameFilter(admin.SimpleListFilter):
    """The records that share an identifier; offered only where somebody came for it."""

    field: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the identifier that was asked for."""
        values = request.GET.getlist(self.parameter_name or "")
        return [(value, value) for value in values[:1] if value]

    def queryset(self, request: HttpRequest, queryset: Records) -> Records:
        """Return the records with this identifier."""
        value = self.value()
        if not value:
            return queryset
        return queryset.none() if "\0" in value else queryset.filter(**{self.field: value})


class TraceFilter(SameFilter):
    """One trace."""

    title = _("trace id")
    parameter_name = "trace"
    field = "trace_id"


class PreviewFilter(SameFilter):
    """One preview."""

    title = _("preview id")
    parameter_name = "preview"
    field = "preview_id"


class LastDayFilter(admin.SimpleListFilter):
    """What came within the last 24 hours, which is what the overview counts."""

    title = _("time")
    parameter_name = "now"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the one choice."""
        return [("day", gettext("in the last 24 hours"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows of that time."""
        return queryset.filter(created_at__gt=Now() - DAY) if self.value() == "day" else queryset
