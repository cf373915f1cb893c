"""How a replay operation is shown, in the list and on its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from notifications.admin.display import EMPTY_VALUE, age_html, badge, column, isolated, time_html, user_link
from notifications.admin.replay_form import ReplayForm
from notifications.models import ReplayOperation


class ReplayColumns:
    """Columns of the list, and the facts of the page."""

    @admin.display(description=_("number"))
    def number(self, operation: ReplayOperation) -> str:
        """Return its number."""
        return f"#{operation.pk}"

    @admin.display(description=_("status"))
    def state(self, operation: ReplayOperation) -> SafeString:
        """Return the status in its colour."""
        return badge(f"op-{operation.status}", operation.get_status_display())

    @admin.display(description=_("replayed"))
    def progress(self, operation: ReplayOperation) -> str:
        """Return how many of how many."""
        return f"{operation.done} / {operation.matched}"

    why = column(ReplayOperation, "reason")

    @admin.display(description=_("ordered by"))
    def owner(self, operation: ReplayOperation) -> SafeString | str:
        """Return the user with a link to them, or the bare id of one who is not there."""
        if operation.created_by:  # prefetched, so that one who is not there is None and no error
            return user_link(operation.created_by)
        return str(operation.created_by_id or EMPTY_VALUE)

    @admin.display(description=_("ordered"))
    def ordered(self, operation: ReplayOperation) -> SafeString | str:
        """Return how long ago."""
        return age_html(operation.created_at)

    def facts(self, operation: ReplayOperation) -> Iterator[tuple[Any, Any]]:
        """Yield what was ordered, by whom and when: labels and values."""
        yield _("Reason"), isolated(operation.reason)
        yield _("Ordered by"), self.owner(operation)
        for name, value in _items(operation.criteria):
            field = ReplayForm.base_fields.get(name)
            label = field.label if field else _("Record numbers") if name == "ids" else name
            yield label, isolated(", ".join(map(str, value)) if isinstance(value, list) else value)
        yield _("Left alone if changed after"), time_html(operation.as_of)
        yield _("Records per minute"), operation.rate or _("no limit")
        yield _("Ordered"), time_html(operation.created_at)
        yield _("Started"), time_html(operation.started_at)
        yield _("Ended"), time_html(operation.finished_at)
        if operation.error:
            yield _("Error"), isolated(operation.error)


def _items(criteria: Any) -> list[tuple[str, Any]]:
    return list(criteria.items()) if isinstance(criteria, dict) else [("criteria", criteria)]
