"""The base of the model admins.

A page, not a server error, answers a query string that means nothing. A confirmation survives the end of the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import FieldError
from django.db import DataError, router, transaction
from django.http import HttpRequest
from django.urls import URLPattern

from notifications.admin.kept_input import keep_input

if TYPE_CHECKING:
    Base = admin.ModelAdmin[Any]
else:
    Base = admin.ModelAdmin

INVALID_PARAMETERS = (DataError, FieldError, TypeError, ValueError, LookupError, OverflowError)
"""What Django and PostgreSQL raise for a lookup that a column does not have, or a value that it cannot compare."""


class BaseAdmin(Base):
    """Base class of the app's model admins."""

    confirmed_actions: frozenset[str] = frozenset({"delete_selected"})
    """The actions that ask for a confirmation, and run only if the POST contains `confirm_button`."""
    confirm_button = "post"

    @property
    def urls(self) -> list[Any]:
        """Return the URLs. Each view keeps the input of a confirmation if the session has ended."""
        patterns: list[Any] = self.get_urls()
        for pattern in patterns:
            if isinstance(pattern, URLPattern):
                pattern.callback = keep_input(pattern.callback, self)
        return patterns

    def has_confirmation(self, request: HttpRequest) -> bool:
        """Return True if this POST, without `confirm_button`, changes nothing but shows what it would change."""
        actions = set(request.POST.getlist("action"))
        return is_page(request, "changelist") and bool(actions) and actions <= self.confirmed_actions

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        """Return the list.

        Raises:
            IncorrectLookupParameters: A parameter is invalid. Django then opens the list without parameters.
        """
        try:
            # The transaction keeps the connection usable after an error, for a project with ATOMIC_REQUESTS.
            with transaction.atomic(using=router.db_for_write(self.model)):
                return super().get_changelist_instance(request)
        except INVALID_PARAMETERS as error:
            raise IncorrectLookupParameters from error

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row, or None. An empty `_to_field` in the address is no field; Django would fail to find it."""
        return super().get_object(request, object_id, from_field or None)


def is_page(request: HttpRequest, name: str) -> bool:
    """Return True if the address of the request is this page of a model admin, such as "changelist"."""
    match = request.resolver_match
    return match is not None and (match.url_name or "").endswith(f"_{name}")
