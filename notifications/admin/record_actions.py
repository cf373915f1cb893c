"""The admin actions replay, send now and cancel.

The first POST shows a confirmation page. The second POST runs the operation. A GET never runs it.
"""

from __future__ import annotations

from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import Max
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.admin.base import BaseAdmin
from notifications.admin.record_operations import CANCEL, OPERATIONS, REPLAY, SEND_NOW, ConfirmationForm, Operation
from notifications.admin.replay_form import UnsupportedFilter, criteria_query
from notifications.clock import database_now
from notifications.content.text import escape_invisible
from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet
from notifications.states import Status

MAX_RECORDS_PER_OPERATION = 10_000
"""Records that one operation may change. It must end within the time limit of a web request."""
TEMPLATE = "admin/notifications/notificationrecord/confirmation.html"


class RecordActionsAdmin(BaseAdmin):
    """Mixin that offers the operations as admin actions. Each requires its own permission."""

    actions = tuple(OPERATIONS)
    confirmed_actions = frozenset(OPERATIONS)
    confirm_button = "confirm"

    @admin.action(description=_("Replay selected notifications"), permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: NotificationQuerySet[NotificationRecord]) -> HttpResponse:
        """Confirm, then replay the selected records. For the whole list, open the form of a replay operation."""
        if request.POST.get("select_across") == "1":
            return self._redirect_to_replay_form(request)
        return self._operate(request, queryset, REPLAY)

    @admin.action(description=_("Cancel selected notifications"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: NotificationQuerySet[NotificationRecord]) -> HttpResponse:
        """Confirm, then cancel those of the selected records that are not sent yet."""
        return self._operate(request, queryset, CANCEL)

    @admin.action(description=_("Send selected notifications now"), permissions=["send_now"])
    def send_now(self, request: HttpRequest, queryset: NotificationQuerySet[NotificationRecord]) -> HttpResponse:
        """Confirm, then make those of the selected records due now that are scheduled or waiting to retry."""
        return self._operate(request, queryset, SEND_NOW)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may replay records."""
        return request.user.has_perm("notifications.replay_notificationrecord")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may cancel records."""
        return request.user.has_perm("notifications.cancel_notificationrecord")

    def has_send_now_permission(self, request: HttpRequest) -> bool:
        """Return True if the user may send records now."""
        return request.user.has_perm("notifications.send_now_notificationrecord")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the list, or run an action.

        Raises:
            PermissionDenied: The user may not run the action. Django would ignore the action silently.
            BadRequest: A selected id is not a number.
        """
        requested = OPERATIONS.keys() & set(request.POST.getlist("action"))
        if not requested <= self.get_actions(request).keys():
            raise PermissionDenied
        if not all(pk.isdecimal() for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            raise BadRequest("not a record id")
        return super().changelist_view(request, extra_context)

    def operations_for(self, request: HttpRequest, record: NotificationRecord) -> list[Operation]:
        """Return the operations that the user may run and that apply to the record in its current state."""
        allowed = self.get_actions(request)
        records = NotificationRecord.objects.filter(pk=record.pk)
        return [
            operation
            for name, operation in OPERATIONS.items()
            if name in allowed and operation.select(records, operation.can_force).exists()
        ]

    def _redirect_to_replay_form(self, request: HttpRequest) -> HttpResponse:
        try:
            criteria = criteria_query(request.GET.dict(), database_now())
        except UnsupportedFilter as error:
            text = gettext("A replay operation does not support this filter: %(filters)s. Check the criteria below.")
            self.message_user(request, text % {"filters": escape_invisible(str(error))[:200]}, messages.WARNING)
            criteria = error.supported
        return HttpResponseRedirect(f"{reverse('admin:notifications_replayoperation_add')}?{criteria}")

    def _operate(
        self, request: HttpRequest, records: NotificationQuerySet[NotificationRecord], operation: Operation
    ) -> HttpResponse:
        entered = {"reason": request.POST.get("reason", ""), "force": "force" in request.POST}
        form = ConfirmationForm(
            operation, request.POST if self.confirm_button in request.POST else None, initial=entered
        )
        if form.is_valid():
            confirmed = records.filter(pk__lte=form.cleaned_data["newest"] or 0)
            force = form.cleaned_data.get("force", False)
            if operation.select(confirmed, force).count() <= MAX_RECORDS_PER_OPERATION:
                selected = confirmed.count()
                actor = cast(AbstractBaseUser, request.user)
                done = operation.run(confirmed, actor, form.cleaned_data["reason"], force)
                self._report(request, operation, done, selected - done)
                return HttpResponseRedirect(self._previous_page(request))
            form.add_error(None, _("Too many notifications for one operation."))
        return self._confirm(request, records, operation, form)

    def _confirm(
        self,
        request: HttpRequest,
        records: NotificationQuerySet[NotificationRecord],
        operation: Operation,
        form: ConfirmationForm,
    ) -> TemplateResponse:
        selected = records.by_status()
        selectable = operation.select(records, False).by_status()
        forced = operation.select(records, True).by_status() if operation.can_force else selectable
        unchanged = {status: count - selectable.get(status, 0) for status, count in selected.items()}
        reasons = operation.explain_unchanged(records, unchanged)
        rows = [
            {
                "status": status,
                "selected": selected[status],
                "changed": selectable.get(status, 0),
                "unchanged": unchanged[status],
                "reason": "; ".join(reasons.get(status, ())),
            }
            for status in Status
            if status in selected
        ]
        counts = {
            "selected_count": sum(selected.values()),
            "changed_count": sum(selectable.values()),
            "forced_count": sum(forced.values()) - sum(selectable.values()),
        }
        context = {
            **self.admin_site.each_context(request),
            **counts,
            "confirm_text": operation.confirm_text % {"count": counts["changed_count"]},
            "title": operation.title,
            "operation": operation,
            "opts": self.opts,
            "media": self.media,
            "form": form,
            "rows": rows,
            "newest": records.aggregate(newest=Max("pk"))["newest"],
            "max_records": MAX_RECORDS_PER_OPERATION,
            "too_many": counts["changed_count"] > MAX_RECORDS_PER_OPERATION,
            "can_act": counts["changed_count"] <= MAX_RECORDS_PER_OPERATION
            and counts["changed_count"] + counts["forced_count"] > 0,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
            "from_record": request.POST.get("from_record", ""),
            "back": self._previous_page(request),
        }
        return TemplateResponse(request, TEMPLATE, context)

    def _previous_page(self, request: HttpRequest) -> str:
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if request.POST.get("from_record") and len(selected) == 1:
            return reverse("admin:notifications_notificationrecord_change", args=selected)
        return request.get_full_path()

    def _report(self, request: HttpRequest, operation: Operation, done: int, unchanged: int) -> None:
        if done:
            self.message_user(request, operation.done_text % {"count": done}, messages.SUCCESS)
        else:
            self.message_user(request, gettext("Nothing was changed."), messages.WARNING)
        if unchanged > 0:  # negative if records were added to the list in the meantime
            text = ngettext("%(count)d was not changed.", "%(count)d were not changed.", unchanged)
            self.message_user(request, text % {"count": unchanged}, messages.INFO)
