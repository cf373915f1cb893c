"""Replay operations: create one, show its progress, stop it."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.admin.base import BaseAdmin, is_page
from notifications.admin.display import EMPTY_VALUE, STYLE, badge, format_time, isolated
from notifications.admin.replay_columns import ReplayColumns
from notifications.admin.replay_form import DEFAULT_RATE_PER_MINUTE, ReplayForm, canonical_json
from notifications.clock import database_now
from notifications.models import ReplayOperation
from notifications.replay.criteria import breakdown
from notifications.replay.operations import OperationExists, cancel_operation, create_operation
from notifications.states import Status

TEMPLATE_FOLDER = "admin/notifications/replayoperation/"
MAX_GROUPS = 50
"""Rows that the breakdown of a count shows."""


@admin.register(ReplayOperation)
class ReplayOperationAdmin(ReplayColumns, BaseAdmin):
    """List and pages of replay operations.

    Users who may view notifications may view operations. Users who may also replay notifications may create and stop
    operations.
    """

    list_display = ("number", "state", "progress", "reason_text", "owner", "created")
    list_display_links = ("number", "state")
    list_filter = ("status",)
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER
    ordering = ("-id",)
    sortable_by = ()
    actions = None
    confirm_button = "_start"
    empty_value_display = EMPTY_VALUE

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may view notifications."""
        return request.user.has_perm("notifications.view_notificationrecord")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may view and replay notifications."""
        return self.has_view_permission(request) and request.user.has_perm("notifications.replay_notificationrecord")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: operations are never edited."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: operations are never deleted here."""
        return False

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may view operations."""
        return self.has_view_permission(request)

    def has_confirmation(self, request: HttpRequest) -> bool:
        """Return True for the form of a new operation: without the button it only counts."""
        return is_page(request, "add")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ReplayOperation]:
        """Return operations and prefetch their users. A join would hide the operations of deleted users."""
        return super().get_queryset(request).prefetch_related("created_by")

    def get_urls(self) -> list[Any]:
        """Return the URLs of the admin, with the one that stops an operation."""
        stop = path(
            "<int:pk>/cancel/",
            self.admin_site.admin_view(self.cancel_view),
            name="notifications_replayoperation_cancel",
        )
        return [stop, *super().get_urls()]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the form and count the matching records. A POST of counted criteria creates the operation."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        starting = self.confirm_button in request.POST
        data = request.POST if request.method == "POST" else request.GET.copy()
        if request.method != "POST" and data:
            data.setdefault("rate", str(DEFAULT_RATE_PER_MINUTE))
        form = ReplayForm(data or None, to_start=starting, initial={"rate": DEFAULT_RATE_PER_MINUTE})
        counted: dict[str, Any] = {}
        try:
            if form.is_valid():
                as_of = form.counted_at()
                if starting and as_of:
                    return self._start(request, form, as_of)
                counted = _count(form)
            elif form.is_bound and starting and hasattr(form, "criteria") and "reason" in form.errors:
                counted = _count(form)
        except OperationalError:
            form.add_error(None, _("Too many notifications to count. Narrow the criteria."))
        if starting and counted and not form.errors:
            form.add_error(None, _("The criteria were changed. Check the new count, then start the replay."))
        context = {
            **self.admin_site.each_context(request),
            **counted,
            "title": _("Replay many notifications"),
            "opts": self.opts,
            "media": self.media,
            "form": form,
            "can_start": bool(counted.get("count")),
        }
        return TemplateResponse(request, f"{TEMPLATE_FOLDER}add_form.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the progress and the details of an operation."""
        if not self.has_view_permission(request) or request.method not in ("GET", "HEAD"):
            raise PermissionDenied
        operation = self.get_object(request, object_id)
        if operation is None:
            raise Http404
        context = {
            **self.admin_site.each_context(request),
            "title": _("Replay operation"),
            "subtitle": f"#{operation.pk}",
            "opts": self.opts,
            "media": self.media,
            "operation": operation,
            "unfinished": operation.next_batch_at is not None,
            "percent": _percent(operation),
            "unchanged": max(operation.matched - operation.done, 0),
            "state": self.state(operation),
            "details": list(self.details(operation)),
            "can_cancel": operation.next_batch_at is not None and self.has_add_permission(request),
        }
        return TemplateResponse(request, f"{TEMPLATE_FOLDER}progress.html", context)

    def cancel_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Stop an operation. Only POST is allowed."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        operation = self.get_object(request, str(pk))
        if operation is None:
            raise Http404
        if cancel_operation(operation, cast(AbstractBaseUser, request.user)):
            text = gettext("The replay was stopped. Notifications that were already replayed are sent.")
            self.message_user(request, text, messages.SUCCESS)
        else:
            self.message_user(request, gettext("The replay had already ended."), messages.WARNING)
        return HttpResponseRedirect(_page(operation))

    def _start(self, request: HttpRequest, form: ReplayForm, as_of: Any) -> HttpResponse:
        try:
            operation = create_operation(
                form.criteria,
                cast(AbstractBaseUser, request.user),
                form.cleaned_data["reason"],
                rate=form.cleaned_data["rate"],
                as_of=as_of,
            )
        except OperationExists as error:
            text = gettext("Nothing was started: this operation has the same criteria.")
            self.message_user(request, text, messages.WARNING)
            return HttpResponseRedirect(_page(error.operation))
        text = ngettext(
            "%(count)d notification will be replayed.", "%(count)d notifications will be replayed.", operation.matched
        )
        self.message_user(request, text % {"count": operation.matched}, messages.SUCCESS)
        return HttpResponseRedirect(_page(operation))


def _count(form: ReplayForm) -> dict[str, Any]:
    """Return the template context with the count, and store the counted criteria and the time in the form."""
    as_of = database_now()
    groups = breakdown(form.criteria, as_of)
    count = sum(group.count for group in groups)
    rate = form.cleaned_data.get("rate")
    data = cast(QueryDict, form.data).copy()
    data["counted"], data["as_of"] = canonical_json(form.criteria), as_of.isoformat()
    form.data = data
    rows = [
        {
            "state": badge(group.status, Status(group.status).label),
            "code": isolated(group.code) if group.code else EMPTY_VALUE,
            "channel": isolated(group.channel),
            "count": group.count,
            "oldest": format_time(group.oldest),
            "newest": format_time(group.newest),
        }
        for group in groups[:MAX_GROUPS]
    ]
    return {
        "count": count,
        "rows": rows,
        "more_groups": max(len(groups) - MAX_GROUPS, 0),
        "oldest": format_time(min(group.oldest for group in groups)) if groups else "",
        "newest": format_time(max(group.newest for group in groups)) if groups else "",
        "minutes": -(-count // rate) if rate else 0,
    }


def _percent(operation: ReplayOperation) -> int:
    return min(100, operation.done * 100 // operation.matched) if operation.matched else 100


def _page(operation: ReplayOperation) -> str:
    return reverse("admin:notifications_replayoperation_change", args=[operation.pk])
