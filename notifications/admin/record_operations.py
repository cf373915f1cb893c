"""The operations on records (replay, send now, cancel), their texts, and the confirmation form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _, ngettext_lazy, pgettext_lazy

from notifications.api import replay_notifications, send_notifications_now
from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet
from notifications.service import NotificationService
from notifications.states import CLAIMABLE, UNDELIVERED, Status

Records = Callable[[NotificationQuerySet[NotificationRecord]], NotificationQuerySet[NotificationRecord]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation on records and its texts.

    Attributes:
        name: The name of the admin action.
        title: The title of the confirmation page.
        button: The label of the button.
        confirm_text: States what will be done to `count` records.
        done_text: States what was done to `count` records.
        select: Returns the records the operation applies to. Arguments: records, force.
        run: Runs the operation and returns the number of changed records. Arguments: records, user, reason, force.
        can_force: True if the operator may force the operation.
        unchanged_reasons: For each status, why the operation does not apply.
        exclusions: Further records that it does not apply to, and why.
    """

    name: str
    title: Promise
    button: Promise
    confirm_text: Promise
    done_text: Promise
    select: Callable[[NotificationQuerySet[NotificationRecord], bool], NotificationQuerySet[NotificationRecord]]
    run: Callable[[NotificationQuerySet[NotificationRecord], AbstractBaseUser, str, bool], int]
    can_force: bool
    unchanged_reasons: Mapping[Status, Promise]
    exclusions: tuple[tuple[Records, Promise], ...] = ()

    def explain_unchanged(
        self, records: NotificationQuerySet[NotificationRecord], unchanged: Mapping[str, int]
    ) -> dict[str, list[str]]:
        """Return for each status why records are not changed.

        Args:
            records: The selected records.
            unchanged: The number of records that are not changed, by status.
        """
        reasons: dict[str, list[str]] = {}
        for select, text in self.exclusions:
            for status, count in select(records).by_status().items():
                if unchanged.get(status):
                    reasons.setdefault(status, []).append(f"{count} {text}")
        for status, count in unchanged.items():
            if count and status in self.unchanged_reasons and status not in reasons:
                reasons[status] = [str(self.unchanged_reasons[Status(status)])]
        return reasons


EXPIRED_TEXT = pgettext_lazy("after a number", "expired; request them again")
BLOCKED_TEXT = pgettext_lazy("after a number", "have a paused or failing channel; resume it or wait for its probe")
ORDER_TEXT = pgettext_lazy("after a number", "wait for an earlier message of their order key")
REPLAY = Operation(
    name="replay",
    title=_("Replay notifications"),
    button=_("Replay"),
    confirm_text=ngettext_lazy("%(count)d will be sent again.", "%(count)d will be sent again.", "count"),
    done_text=ngettext_lazy(
        "%(count)d notification is sent again.", "%(count)d notifications are sent again.", "count"
    ),
    select=lambda records, force: records.replayable(force=force),
    run=lambda records, actor, reason, force: replay_notifications(records, actor, reason, force=force),
    can_force=True,
    unchanged_reasons={
        Status.PENDING: _("is pending and will be sent automatically"),
        Status.SENDING: _("is being sent"),
        Status.FAILED: _("will be retried automatically"),
        Status.SENT: _("was delivered; requires force, and the user receives it twice"),
        Status.SKIPPED: _("was cancelled; requires force"),
    },
    exclusions=((lambda records: records.filter(status__in=UNDELIVERED).expired(), EXPIRED_TEXT),),
)
CANCEL = Operation(
    name="cancel",
    title=_("Cancel notifications"),
    button=_("Cancel"),
    confirm_text=ngettext_lazy("%(count)d will be cancelled.", "%(count)d will be cancelled.", "count"),
    done_text=ngettext_lazy(
        "%(count)d notification was cancelled.", "%(count)d notifications were cancelled.", "count"
    ),
    select=lambda records, force: records.cancellable(),
    run=lambda records, actor, reason, force: NotificationService().cancel(records, actor, reason),
    can_force=False,
    unchanged_reasons={
        Status.SENDING: _("is being sent"),
        Status.SENT: _("was delivered already"),
        Status.DEAD: _("will not be sent"),
        Status.SKIPPED: _("will not be sent"),
    },
)
SEND_NOW = Operation(
    name="send_now",
    title=_("Send notifications now"),
    button=_("Send now"),
    confirm_text=ngettext_lazy("%(count)d will be sent now.", "%(count)d will be sent now.", "count"),
    done_text=ngettext_lazy("%(count)d notification is sent now.", "%(count)d notifications are sent now.", "count"),
    select=lambda records, force: records.deferred(),
    run=lambda records, actor, reason, force: send_notifications_now(records, actor, reason),
    can_force=False,
    unchanged_reasons={
        Status.PENDING: _("is due already; the next available worker sends it"),
        Status.FAILED: _("is due already; the next available worker sends it"),
        Status.SENDING: _("is being sent"),
        Status.SENT: _("was delivered already"),
        Status.DEAD: _("will not be sent; replay it instead"),
        Status.SKIPPED: _("will not be sent; replay it instead"),
    },
    exclusions=(
        (lambda records: records.filter(status__in=CLAIMABLE).expired(), EXPIRED_TEXT),
        (lambda records: records.blocked_by_endpoint(), BLOCKED_TEXT),
        (lambda records: records.blocked_by_order(), ORDER_TEXT),
    ),
)
OPERATIONS = {operation.name: operation for operation in (REPLAY, SEND_NOW, CANCEL)}


class ConfirmationForm(forms.Form):
    """The reason for the operation, and for a replay whether to force it."""

    reason = forms.CharField(
        label=_("Reason"), max_length=500, help_text=_("Stored in the history of each changed notification.")
    )
    force = forms.BooleanField(
        label=_("Force"),
        required=False,
        help_text=_("Include delivered and cancelled notifications. Users receive a delivered message twice."),
    )
    newest = forms.IntegerField(required=False)
    """The highest record id when the confirmation page was shown. Later records are not changed."""

    def __init__(self, operation: Operation, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not operation.can_force:
            del self.fields["force"]
