"""The form of a new replay operation: the criteria, the reason and the rate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from notifications.admin.current_states import DAY
from notifications.conf import service_options
from notifications.exceptions import NotificationError
from notifications.replay.criteria import MAX_TEXT_CHARACTERS, Criteria, InvalidCriteria
from notifications.replay.operations import MAX_RATE_PER_MINUTE, MAX_REASON_CHARACTERS
from notifications.states import UNDELIVERED, ErrorCode, Status
from notifications.user_keys import to_user_key

DEFAULT_RATE_PER_MINUTE = 600
"""The proposed rate: ten per second do not overload an endpoint that has just recovered."""


def _text(label: Any, **kwargs: Any) -> forms.CharField:
    widget = forms.TextInput(attrs={"class": "vTextField"})
    return forms.CharField(label=label, required=False, max_length=MAX_TEXT_CHARACTERS, widget=widget, **kwargs)


def _time(label: Any, **kwargs: Any) -> forms.DateTimeField:
    widget = forms.DateTimeInput(format="%Y-%m-%dT%H:%M:%S", attrs={"type": "datetime-local", "step": "any"})
    return forms.DateTimeField(label=label, required=False, widget=widget, **kwargs)


def _channels() -> list[tuple[str, Any]]:
    return [("", _("all"))] + [(name, name) for name in service_options().providers]


class ReplayForm(forms.Form):
    """Fields of the same names as in `Criteria`, plus reason and rate.

    Attributes:
        criteria: The criteria, after `is_valid()` returned True.
    """

    statuses = forms.MultipleChoiceField(
        label=_("Status"),
        required=False,
        choices=[(status.value, status.label) for status in (*UNDELIVERED, Status.SENT)],
        widget=forms.CheckboxSelectMultiple,
    )
    codes = forms.MultipleChoiceField(
        label=_("Error code"), required=False, choices=[(code.value, code.value) for code in ErrorCode]
    )
    channel = forms.ChoiceField(label=_("Channel"), required=False, choices=_channels)
    changed_from = _time(_("Changed from"), help_text=_("When it became dead or skipped."))
    changed_until = _time(_("Changed before"))
    created_from = _time(_("Requested from"))
    created_until = _time(_("Requested before"))
    user = forms.CharField(label=_("User id"), required=False)  # as long as a key of the user model may be
    dedupe_key = _text(_("Dedupe key"))
    trace_id = _text(_("Trace id"))
    preview_id = _text(_("Preview id"))
    search = _text(_("Search"), help_text=_("Enter a complete dedupe key, trace id, user id, user name or record id."))
    force = forms.BooleanField(
        label=_("Force"),
        required=False,
        help_text=_("Include delivered and cancelled notifications. Users receive a delivered message twice."),
    )
    rate = forms.IntegerField(
        label=_("Records per minute"),
        required=False,
        min_value=1,
        max_value=MAX_RATE_PER_MINUTE,
        help_text=_("Limit for all workers together. Empty: no limit."),
    )
    reason = forms.CharField(
        label=_("Reason"),
        max_length=MAX_REASON_CHARACTERS,
        required=False,
        help_text=_("Stored with the operation and in the history of each changed notification."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    counted = forms.CharField(required=False, widget=forms.HiddenInput)
    """The counted criteria as JSON, so that exactly the counted selection is replayed."""
    as_of = forms.CharField(required=False, widget=forms.HiddenInput)
    """The time of the count. Records that change later are not replayed."""

    criteria: Criteria

    def __init__(self, *args: Any, to_start: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = to_start

    def clean(self) -> dict[str, Any]:
        """Build the criteria from the fields and report their errors at the fields."""
        cleaned = super().clean() or {}
        values = {name: cleaned.get(name) for name in CRITERIA_FIELDS}
        if values["user"]:
            values["user"] = to_user_key(values["user"]) or values["user"]
        lists = {name: tuple(values.pop(name) or ()) for name in ("statuses", "codes")}
        try:
            self.criteria = Criteria(**lists, **{name: value for name, value in values.items() if value})  # type: ignore[arg-type]
        except InvalidCriteria as error:
            for field, reason in error.errors:
                self.add_error(field, str(reason))
        return cleaned

    def counted_at(self) -> datetime | None:
        """Return the time at which exactly these criteria were counted, or None if they were not counted."""
        if self.cleaned_data["counted"] != canonical_json(self.criteria):
            return None
        try:
            as_of = datetime.fromisoformat(self.cleaned_data["as_of"])
        except ValueError:
            return None
        return as_of if as_of.tzinfo else None


CRITERIA_FIELDS = tuple(name for name in ReplayForm.base_fields if name not in ("rate", "reason", "counted", "as_of"))
"""The form fields that belong to `Criteria`."""


def canonical_json(criteria: Criteria) -> str:
    """Return criteria as JSON text with sorted keys, so that equal criteria give equal texts."""
    return json.dumps(criteria.as_json(), sort_keys=True)


class UnsupportedFilter(NotificationError, ValueError):
    """The list uses a filter that replay criteria do not support. The message names the filter.

    Args:
        names: The filters.
        supported: The query string of the others.
    """

    def __init__(self, names: str, supported: str = "") -> None:
        self.supported = supported
        super().__init__(names)


def criteria_query(parameters: Mapping[str, str], now: datetime) -> str:
    """Return the query string for the form of a replay operation that selects what a list shows.

    Args:
        parameters: The query parameters of the list of notifications.
        now: The time, by PostgreSQL's clock.

    Returns:
        An encoded query string with fields of `ReplayForm`.

    Raises:
        UnsupportedFilter: A filter of the list has no equivalent in the criteria.
    """
    fields: list[tuple[str, str]] = []
    unknown: list[str] = []
    for name, value in parameters.items():
        plain = name.removesuffix("__exact")
        if plain in _EQUAL_FIELDS:
            values = value.split(",") if plain == "status__in" else [value]
            fields += [(_EQUAL_FIELDS[plain], item) for item in values]
        elif plain in _TIME_FIELDS:
            try:
                fields.append((_TIME_FIELDS[plain], _local(datetime.fromisoformat(value))))
            except ValueError:
                unknown.append(name)
        elif (plain, value) == ("now", "dead"):
            fields += [("statuses", Status.DEAD), ("changed_from", _local(now - DAY))]
        elif plain not in _IGNORED_PARAMETERS and plain not in _DATE_HIERARCHY:
            unknown.append(name)
    query = urlencode(list(dict.fromkeys(fields)) + _date_hierarchy_fields(parameters))
    if unknown:
        raise UnsupportedFilter(", ".join(unknown), query)
    return query


def _date_hierarchy_fields(parameters: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the limits of the year, month or day that the list's date hierarchy shows."""
    if "created_at__year" not in parameters:
        return []
    try:
        year, month, day = (int(parameters.get(name) or 0) for name in _DATE_HIERARCHY)
        first = datetime(year, month or 1, day or 1)  # noqa: DTZ001  the list shows local days
        longest = timedelta(days=1 if day else 31 if month else 366)
        after = first + longest
        last = after if day else after.replace(day=1) if month else after.replace(month=1, day=1)
    except (ValueError, OverflowError):
        raise UnsupportedFilter("created_at") from None
    return [("created_from", first.isoformat()), ("created_until", last.isoformat())]


def _local(value: datetime) -> str:
    local = timezone.localtime(value) if value.tzinfo else value
    return local.replace(tzinfo=None).isoformat(timespec="seconds")


_EQUAL_FIELDS = {
    "status": "statuses",
    "status__in": "statuses",
    "code": "codes",
    "channel": "channel",
    "q": "search",
    "user": "user",
    "user_id": "user",
    "user__id": "user",
    "dedupe_key": "dedupe_key",
    "trace": "trace_id",
    "trace_id": "trace_id",
    "preview": "preview_id",
    "preview_id": "preview_id",
}
_TIME_FIELDS = {
    "created_at__gte": "created_from",
    "created_at__lt": "created_until",
    "updated_at__gte": "changed_from",
    "updated_at__lt": "changed_until",
}
_DATE_HIERARCHY = ("created_at__year", "created_at__month", "created_at__day")
_IGNORED_PARAMETERS = ("o", "p", "all", "e", "_facets")
