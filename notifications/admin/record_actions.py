"""Replay, send now and cancel: the first POST asks, the second acts, a GET does neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import BadRequest, PermissionDenied
from django.db.models import Max
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.admin.record_operations import CANCEL, OPERATIONS, REPLAY, SEND_NOW, ConfirmationForm, Operation
from notifications.admin.replay_form import UnsupportedFilter, criteria_query
from notifications.content.text import escape_invisible
from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet
from notifications.states import Status

if TYPE_CHECKING:
    Base = admin.ModelAdmin[NotificationRecord]
else:
    Base = admin.ModelAdmin

MAX_RECORDS_PER_OPERATION = 10_000
"""Records one operation in the admin takes: it has to end well within a web server's time limit."""
TEMPLATE = "admin/notifications/notificationrecord/confirmation.html"


class RecordActionsAdmin(Base):
    """Offers the operations as actions, each with its own permission."""

    actions = tuple(OPERATIONS)

    @admin.action(description=_("Replay selected notifications"), permissions=["replay"])
    def replay(self, request: HttpRequest, queryset: NotificationQuerySet[NotificationRecord]) -> HttpResponse:
        """Ask, then let the selected records be sent again; all that the list has become a replay operation."""
        if request.POST.get("select_across") == "1":
            return self._order(request)
        return self._operate(request, queryset, REPLAY)

    @admin.action(description=_("Cancel selected notifications"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, queryset: NotificationQuerySet[NotificationRecord]) -> HttpResponse:
        """Ask, then call off the selected records that wait."""
        return self._operate(request, queryset, CANCEL)

    @admin.action(description=_("Send selected notifications now"), permissions=["send_now"])
    def send_now(self, request: HttpRequest, queryset: NotificationQuerySet[NotificationRecord]) -> HttpResponse:
        """Ask, then make the selected records that wait due at once."""
        return self._operate(request, queryset, SEND_NOW)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may replay."""
        return request.user.has_perm("notifications.replay_notificationrecord")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may cancel."""
        return request.user.has_perm("notifications.cancel_notificationrecord")

    def has_send_now_permission(self, request: HttpRequest) -> bool:
        """Tell whether this user may send now what waits."""
        return request.user.has_perm("notifications.send_now_notificationrecord")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Refuse an operation the user may not do and ids that are none, where Django would not say so."""
        asked = OPERATIONS.keys() & set(request.POST.getlist("action"))
        if not asked <= self.get_actions(request).keys():
            raise PermissionDenied
        if not all(pk.isdecimal() for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)):
            raise BadRequest("not a record id")
        return super().changelist_view(request, extra_context)

    def operations_for(self, request: HttpRequest, record: NotificationRecord) -> list[Operation]:
        """Return what this user may do to this record in its state."""
        allowed = self.get_actions(request)
        this = NotificationRecord.objects.filter(pk=record.pk)
        return [
            operation
            for name, operation in OPERATIONS.items()
            if name in allowed and operation.select(this, operation.can_force).exists()
        ]

    def _order(self, request: HttpRequest) -> HttpResponse:
        try:
            order = criteria_query(request.GET.dict())
        except UnsupportedFilter as filters:
            text = gettext("A replay operation cannot keep this filter: %(filters)s. Give its criteria by hand.")
            self.message_user(request, text % {"filters": escape_invisible(str(filters))[:200]}, messages.WARNING)
            order = ""
        return HttpResponseRedirect(f"{reverse('admin:notifications_replayoperation_add')}?{order}")

    def _operate(
        self, request: HttpRequest, records: NotificationQuerySet[NotificationRecord], operation: Operation
    ) -> HttpResponse:
        form = ConfirmationForm(operation, request.POST if "confirm" in request.POST else None)
        if form.is_valid():
            asked = records.filter(pk__lte=form.cleaned_data["newest"] or 0)
            force = form.cleaned_data.get("force", False)
            if operation.select(asked, force).count() <= MAX_RECORDS_PER_OPERATION:
                selected = asked.count()
                actor = cast(AbstractBaseUser, request.user)
                done = operation.run(asked, actor, form.cleaned_data["reason"], force)
                self._report(request, operation, done, selected - done)
                return HttpResponseRedirect(self._back(request))
            form.add_error(None, _("These are too many for one go."))
        return self._ask(request, records, operation, form)

    def _ask(
        self,
        request: HttpRequest,
        records: NotificationQuerySet[NotificationRecord],
        operation: Operation,
        form: ConfirmationForm,
    ) -> TemplateResponse:
        selected = records.by_status()
        taken = operation.select(records, False).by_status()
        forced = operation.select(records, True).by_status() if operation.can_force else taken
        rows = [
            {
                "status": status,
                "selected": selected[status],
                "taken": taken.get(status, 0),
                "refused": selected[status] - taken.get(status, 0),
                "why": operation.unchanged_reasons.get(status, "") if selected[status] > taken.get(status, 0) else "",
            }
            for status in Status
            if status in selected
        ]
        counts = {
            "selected_count": sum(selected.values()),
            "taken_count": sum(taken.values()),
            "forced_count": sum(forced.values()) - sum(taken.values()),
        }
        context = {
            **self.admin_site.each_context(request),
            **counts,
            "asks": operation.confirm_text % {"count": counts["taken_count"]},
            "title": operation.title,
            "operation": operation,
            "opts": self.opts,
            "media": self.media,
            "form": form,
            "rows": rows,
            "newest": records.aggregate(newest=Max("pk"))["newest"],
            "most": MAX_RECORDS_PER_OPERATION,
            "too_many": counts["taken_count"] > MAX_RECORDS_PER_OPERATION,
            "can_act": counts["taken_count"] <= MAX_RECORDS_PER_OPERATION
            and counts["taken_count"] + counts["forced_count"] > 0,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
            "from_record": request.POST.get("from_record", ""),
            "back": self._back(request),
        }
        return TemplateResponse(request, TEMPLATE, context)

    def _back(self, request: HttpRequest) -> str:
        """Return where the operator came from: the record's page, or the list as it was filtered."""
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if request.POST.get("from_record") and len(selected) == 1:
            return reverse("admin:notifications_notificationrecord_change", args=selected)
        return request.get_full_path()

    def _report(self, request: HttpRequest, operation: Operation, done: int, left: int) -> None:
        if done:
            self.message_user(request, operation.done_text % {"count": done}, messages.SUCCESS)
        else:
            self.message_user(request, gettext("Nothing was changed."), messages.WARNING)
        if left > 0:  # negative if the list grew meanwhile
            text = ngettext("%(count)d was left as it is.", "%(count)d were left as they are.", left)
            self.message_user(request, text % {"count": left}, messages.INFO)
