"""Columns of the list of replay operations, and the details on the page of one."""

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
    """Mixin with the columns of the list and the details of the page."""

    @admin.display(description=_("number"))
    def number(self, operation: ReplayOperation) -> str:
        """Return the id of the operation, as in "#7"."""
        return f"#{operation.pk}"

    @admin.display(description=_("status"))
    def state(self, operation: ReplayOperation) -> SafeString:
        """Return the status as a coloured badge."""
        return badge(f"op-{operation.status}", operation.get_status_display())

    @admin.display(description=_("replayed"))
    def progress(self, operation: ReplayOperation) -> str:
        """Return the replayed and the matched records, as in "20 / 60"."""
        return f"{operation.done} / {operation.matched}"

    reason_text = column(ReplayOperation, "reason")

    @admin.display(description=_("started by"))
    def owner(self, operation: ReplayOperation) -> SafeString | str:
        """Return a link to the user, or the id of a user that does not exist."""
        if operation.created_by:  # prefetched, so that a missing user is None and raises nothing
            return user_link(operation.created_by)
        return isolated(operation.created_by_id) if operation.created_by_id else EMPTY_VALUE

    @admin.display(description=_("created"))
    def created(self, operation: ReplayOperation) -> SafeString | str:
        """Return the time since the operation was created."""
        return age_html(operation.created_at)

    def details(self, operation: ReplayOperation) -> Iterator[tuple[Any, Any]]:
        """Yield the details of the operation.

        Args:
            operation: The replay operation.

        Yields:
            (label, value), both ready to be shown.
        """
        yield _("Reason"), isolated(operation.reason)
        yield _("Started by"), self.owner(operation)
        for name, value in _criteria_items(operation.criteria):
            field = ReplayForm.base_fields.get(name)
            label = field.label if field else _("Record ids") if name == "ids" else name
            yield label, isolated(", ".join(map(str, value)) if isinstance(value, list) else value)
        yield _("Unchanged if modified after"), time_html(operation.as_of)
        yield _("Records per minute"), operation.rate or _("no limit")
        yield _("Created"), time_html(operation.created_at)
        yield _("Started"), time_html(operation.started_at)
        yield _("Ended"), time_html(operation.finished_at)
        if operation.error:
            yield _("Error"), isolated(operation.error)


def _criteria_items(criteria: Any) -> list[tuple[str, Any]]:
    return list(criteria.items()) if isinstance(criteria, dict) else [("criteria", criteria)]
