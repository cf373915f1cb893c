"""What operators can do to records, and what they are asked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _, ngettext_lazy

from notifications.api import replay_notifications, send_notifications_now
from notifications.models import NotificationRecord
from notifications.querysets import NotificationQuerySet
from notifications.service import NotificationService
from notifications.states import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What an operator can do to records, and the words for it."""

    name: str
    title: Promise
    button: Promise
    confirm_text: Promise
    """What will be done, for a `count`."""
    done_text: Promise
    """What was done, for a `count`."""
    select: Callable[[NotificationQuerySet[NotificationRecord], bool], NotificationQuerySet[NotificationRecord]]
    """Selects what it takes, with force or without."""
    run: Callable[[NotificationQuerySet[NotificationRecord], AbstractBaseUser, str, bool], int]
    can_force: bool
    unchanged_reasons: Mapping[Status, Promise]
    """Why it leaves a status alone."""


REPLAY = Operation(
    name="replay",
    title=_("Replay notifications"),
    button=_("Replay"),
    confirm_text=ngettext_lazy("%(count)d will be sent again.", "%(count)d will be sent again.", "count"),
    done_text=ngettext_lazy("%(count)d notification goes out again.", "%(count)d notifications go out again.", "count"),
    select=lambda records, force: records.replayable(force=force),
    run=lambda records, actor, reason, force: replay_notifications(records, actor, reason, force=force),
    can_force=True,
    unchanged_reasons={
        Status.PENDING: _("waits already and goes out by itself"),
        Status.SENDING: _("is in a worker's hands"),
        Status.FAILED: _("is tried again by itself"),
        Status.SENT: _("was delivered; only with force, and the reader gets it twice"),
        Status.SKIPPED: _("was called off; only with force, in spite of that"),
    },
)
CANCEL = Operation(
    name="cancel",
    title=_("Cancel notifications"),
    button=_("Call off"),
    confirm_text=ngettext_lazy("%(count)d will be called off.", "%(count)d will be called off.", "count"),
    done_text=ngettext_lazy(
        "%(count)d notification was called off.", "%(count)d notifications were called off.", "count"
    ),
    select=lambda records, force: records.cancellable(),
    run=lambda records, actor, reason, force: NotificationService().cancel(records, actor, reason),
    can_force=False,
    unchanged_reasons={
        Status.SENDING: _("is in a worker's hands"),
        Status.SENT: _("was delivered, there is nothing to call off"),
        Status.DEAD: _("is not sent any more, there is nothing to call off"),
        Status.SKIPPED: _("is not sent any more, there is nothing to call off"),
    },
)
SEND_NOW = Operation(
    name="send_now",
    title=_("Send notifications now"),
    button=_("Send now"),
    confirm_text=ngettext_lazy("%(count)d will be sent at once.", "%(count)d will be sent at once.", "count"),
    done_text=ngettext_lazy("%(count)d notification goes out now.", "%(count)d notifications go out now.", "count"),
    select=lambda records, force: records.deferred(),
    run=lambda records, actor, reason, force: send_notifications_now(records, actor, reason),
    can_force=False,
    unchanged_reasons={
        Status.PENDING: _("is due already; the next free worker sends it"),
        Status.FAILED: _("is due already; the next free worker sends it"),
        Status.SENDING: _("is in a worker's hands"),
        Status.SENT: _("was delivered"),
        Status.DEAD: _("does not wait; replay it"),
        Status.SKIPPED: _("does not wait; replay it"),
    },
)
OPERATIONS = {operation.name: operation for operation in (REPLAY, SEND_NOW, CANCEL)}


class ConfirmationForm(forms.Form):
    """Why, and for a replay whether the reader may get it twice."""

    reason = forms.CharField(
        label=_("Reason"), max_length=500, help_text=_("Kept in the history of every notification it changes.")
    )
    force = forms.BooleanField(
        label=_("Force"),
        required=False,
        help_text=_("Also what was delivered or called off. The reader gets a delivered message a second time."),
    )
    newest = forms.IntegerField(required=False)
    """The last record there was when the page asked; what came later was not asked about."""

    def __init__(self, operation: Operation, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not operation.can_force:
            del self.fields["force"]
