"""The form by which a replay operation is ordered: which records, why, and how fast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from notifications.conf import service_options
from notifications.replay.criteria import LONGEST, Criteria, InvalidCriteria
from notifications.replay.operations import FASTEST, LONGEST_REASON
from notifications.states import UNDELIVERED, ErrorCode, Status

DEFAULT_RATE_PER_MINUTE = 600
"""Records per minute that the form proposes: ten a second harm no endpoint that was just mended."""


def _text(label: Any, **kwargs: Any) -> forms.CharField:
    widget = forms.TextInput(attrs={"class": "vTextField"})
    return forms.CharField(label=label, required=False, max_length=LONGEST, widget=widget, **kwargs)


def _time(label: Any, **kwargs: Any) -> forms.DateTimeField:
    widget = forms.DateTimeInput(format="%Y-%m-%dT%H:%M:%S", attrs={"type": "datetime-local", "step": "any"})
    return forms.DateTimeField(label=label, required=False, widget=widget, **kwargs)


def _channels() -> list[tuple[str, Any]]:
    return [("", _("all"))] + [(name, name) for name in service_options().providers]


class ReplayForm(forms.Form):
    """Its fields are those of Criteria, by the same names, and what makes an order of them.

    After is_valid() `criteria` holds them.
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
    changed_from = _time(_("Changed from"), help_text=_("When a dead or skipped one became so."))
    changed_until = _time(_("Changed before"))
    created_from = _time(_("Requested from"))
    created_until = _time(_("Requested before"))
    user = forms.IntegerField(label=_("User number"), required=False, min_value=1)
    dedupe_key = _text(_("Dedupe key"))
    trace_id = _text(_("Trace id"))
    preview_id = _text(_("Preview id"))
    search = _text(_("Search"), help_text=_("The whole dedupe key, trace id, user id, user name or record number."))
    force = forms.BooleanField(
        label=_("Force"),
        required=False,
        help_text=_("Also what was delivered or called off. The reader gets a delivered message a second time."),
    )
    rate = forms.IntegerField(
        label=_("Records per minute"),
        required=False,
        min_value=1,
        max_value=FASTEST,
        help_text=_("At most, over all workers. Empty: no limit."),
    )
    reason = forms.CharField(
        label=_("Reason"),
        max_length=LONGEST_REASON,
        required=False,
        help_text=_("Kept with the operation, and in the history of every notification it changes."),
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    counted = forms.CharField(required=False, widget=forms.HiddenInput)
    """The criteria that were counted, so that nothing else is replayed than what was looked at."""
    as_of = forms.CharField(required=False, widget=forms.HiddenInput)
    """When; what changes later is left alone."""

    criteria: Criteria

    def __init__(self, *args: Any, to_start: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["reason"].required = to_start

    def clean(self) -> dict[str, Any]:
        """Make criteria of the fields."""
        cleaned = super().clean() or {}
        facts = {name: cleaned.get(name) for name in FIELDS}
        lists = {name: tuple(facts.pop(name) or ()) for name in ("statuses", "codes")}
        try:
            self.criteria = Criteria(**lists, **{name: value for name, value in facts.items() if value})  # type: ignore[arg-type]
        except InvalidCriteria as error:
            for field, reason in error.errors:
                self.add_error(field, str(reason))
        return cleaned

    def counted_at(self) -> datetime | None:
        """Return when just these criteria were counted; None if they were not."""
        if self.cleaned_data["counted"] != canonical_json(self.criteria):
            return None
        try:
            as_of = datetime.fromisoformat(self.cleaned_data["as_of"])
        except ValueError:
            return None
        return as_of if as_of.tzinfo else None


FIELDS = tuple(name for name in ReplayForm.base_fields if name not in ("rate", "reason", "counted", "as_of"))
"""Those that are criteria."""


def canonical_json(criteria: Criteria) -> str:
    """Return criteria as one text: the same for the same."""
    return json.dumps(criteria.as_json(), sort_keys=True)


class UnsupportedFilter(ValueError):
    """The list is filtered by something that criteria do not have; the message names it."""


def criteria_query(parameters: Mapping[str, str]) -> str:
    """Return the query string of an order for what the list of notifications shows with these parameters.

    Raises UnsupportedFilter.
    """
    order: list[tuple[str, str]] = []
    unknown: list[str] = []
    for name, value in parameters.items():
        plain = name.removesuffix("__exact")
        if plain in _SAME:
            order += (
                [(_SAME[plain], one) for one in value.split(",")] if plain == "status__in" else [(_SAME[plain], value)]
            )
        elif plain in _TIMES:
            try:
                order.append((_TIMES[plain], _local(datetime.fromisoformat(value))))
            except ValueError:
                unknown.append(name)
        elif plain not in _NO_FILTER and plain not in _DATES:
            unknown.append(name)
    if unknown:
        raise UnsupportedFilter(", ".join(unknown))
    return urlencode(order + _of_hierarchy(parameters))


def _of_hierarchy(parameters: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the window of the year, month or day that the list's date hierarchy shows."""
    if "created_at__year" not in parameters:
        return []
    try:
        year, month, day = (int(parameters.get(name) or 0) for name in _DATES)
        first = datetime(year, month or 1, day or 1)  # noqa: DTZ001  the list's days are local ones
        longest = timedelta(days=1 if day else 31 if month else 366)
        after = first + longest
        last = after if day else after.replace(day=1) if month else after.replace(month=1, day=1)
    except (ValueError, OverflowError):
        raise UnsupportedFilter("created_at") from None
    return [("created_from", first.isoformat()), ("created_until", last.isoformat())]


def _local(moment: datetime) -> str:
    local = timezone.localtime(moment) if moment.tzinfo else moment
    return local.replace(tzinfo=None).isoformat(timespec="seconds")


_SAME = {
    "status": "statuses",
    "status__in": "statuses",
    "code": "codes",
    "channel": "channel",
    "q": "search",
    "user": "user",
    "user_id": "user",
    "user__id": "user",
    "dedupe_key": "dedupe_key",
    "trace_id": "trace_id",
    "preview_id": "preview_id",
}
_TIMES = {
    "created_at__gte": "created_from",
    "created_at__lt": "created_until",
    "updated_at__gte": "changed_from",
    "updated_at__lt": "changed_until",
}
_DATES = ("created_at__year", "created_at__month", "created_at__day")
_NO_FILTER = ("o", "p", "all", "e", "_facets")
