"""Users' channels. Addresses and tokens go in and never come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy as _, ngettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from notifications.admin.channel_form import SECRETS, ChannelForm
from notifications.admin.display import EMPTY_VALUE, STYLE, age_html, badge, column, isolated, user_link
from notifications.api import resume_channel
from notifications.channels.test_message import error_of, send_test
from notifications.models import UserNotificationChannel
from notifications.security.secrets import Secret, SecretUnreadable, mask_url
from notifications.states import Status

if TYPE_CHECKING:
    Base = admin.ModelAdmin[UserNotificationChannel]
else:
    Base = admin.ModelAdmin

MAX_TESTS_PER_REQUEST = 5
"""Channels that one request tests: it waits for each endpoint."""


@admin.register(UserNotificationChannel)
class UserNotificationChannelAdmin(Base):
    """Where users want to be told, and whether it works."""

    form = ChannelForm
    list_display = ("name", "channel", "enabled", "address", "auth_type", "health", "last_test")
    list_display_links = ("name", "channel")
    list_filter = ("enabled", ("paused_at", admin.EmptyFieldListFilter), "last_test_status")
    list_select_related = ("user",)
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    ordering = ("-id",)
    sortable_by = ()
    search_fields = (f"user__{get_user_model().USERNAME_FIELD}__exact", "user__id__exact")
    search_help_text = _("The whole user name, or a user id.")
    raw_id_fields = ("user",)
    empty_value_display = EMPTY_VALUE
    fieldsets = (
        (None, {"fields": ("user", "owner", "channel", "enabled")}),
        (
            _("Endpoint"),
            {"fields": ("address", "new_webhook_url", "auth_type", "token", "new_bearer_token", "clear_token")},
        ),
        (_("State"), {"fields": ("health", "why_paused", "failures", "last_test", "last_problem", "updated_at")}),
    )
    readonly_fields = (
        *("owner", "address", "token", "health", "why_paused", "failures", "last_test", "last_problem", "updated_at"),
    )

    actions = ("send_test", "resume")

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    @admin.action(description=_("Send a test message to the selected channels"), permissions=["change"])
    def send_test(self, request: HttpRequest, queryset: QuerySet[UserNotificationChannel]) -> None:
        """Send one message to each now, and say what came of it. A success ends a pause."""
        chosen = list(queryset.select_related("user")[: MAX_TESTS_PER_REQUEST + 1])
        if len(chosen) > MAX_TESTS_PER_REQUEST:
            text = gettext("Choose %(count)d channels at most: each test waits for its endpoint.")
            self.message_user(request, text % {"count": MAX_TESTS_PER_REQUEST}, messages.WARNING)
            return
        for channel in chosen:
            record = send_test(channel.user, channel=channel.channel)
            self.log_change(request, channel, "Sent a test message.")
            facts = {"channel": str(channel), "error": error_of(record)}
            if record.status == Status.SENT:
                self.message_user(request, gettext("%(channel)s: the test message was delivered.") % facts)
            else:
                text = gettext("%(channel)s: the test message was not delivered. %(error)s") % facts
                self.message_user(request, text, messages.ERROR)

    @admin.action(description=_("Resume the selected channels"), permissions=["change"])
    def resume(self, request: HttpRequest, queryset: QuerySet[UserNotificationChannel]) -> None:
        """Take their endpoints for well: what waits for them goes out, oldest first, at a limited rate."""
        unwell = queryset.exclude(paused_at=None, probe_at=None)
        resumed = [channel for channel in unwell if resume_channel(channel.pk)]
        for channel in resumed:
            self.log_change(request, channel, "Resumed.")
        text = ngettext("%(count)d channel was resumed.", "%(count)d channels were resumed.", len(resumed))
        self.message_user(request, text % {"count": len(resumed)})

    @method_decorator(sensitive_post_parameters(*SECRETS))
    @method_decorator(sensitive_variables())
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Keep what is typed here out of error reports."""
        return super().changeform_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: UserNotificationChannel, form: Any, change: bool) -> None:
        """Write what was changed and no more: what we read of the rest may be out of date."""
        obj.save(update_fields=form.touched if change else None)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Fix user and channel once they are stored: an address does not change its owner."""
        return (*self.readonly_fields, "user", "channel") if obj else self.readonly_fields

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Leave out what has nothing to show: the state of a new one, the inputs of who may only look."""
        hidden = set() if self.has_change_permission(request, obj) or obj is None else {*SECRETS, "clear_token"}
        hidden |= {"user"} if obj else {"owner", "address", "token", "clear_token"}
        return [
            (title, {"fields": [name for name in options["fields"] if name not in hidden]})
            for title, options in self.fieldsets[: None if obj else -1]
        ]

    why_paused = column(UserNotificationChannel, "pause_reason")
    last_problem = column(UserNotificationChannel, "last_test_error")

    @admin.display(description=_("user"))
    def name(self, channel: UserNotificationChannel) -> SafeString:
        """Return the user's name, set apart."""
        return isolated(channel.user.get_username())

    @admin.display(description=_("user"))
    def owner(self, channel: UserNotificationChannel) -> SafeString:
        """Return the user with a link to them."""
        return user_link(channel.user)

    @admin.display(description=_("webhook address"))
    def address(self, channel: UserNotificationChannel) -> SafeString | str:
        """Return the address with its key masked."""
        return _shown(channel.webhook_url, mask_url)

    @admin.display(description=_("token or signing secret"))
    def token(self, channel: UserNotificationChannel) -> SafeString | str:
        """Return whether there is one."""
        return _shown(channel.bearer_token, lambda token: gettext("stored"))

    @admin.display(description=_("endpoint"))
    def health(self, channel: UserNotificationChannel) -> SafeString:
        """Return whether it is well, and since when it is not."""
        if channel.paused_at:
            return format_html("{} {}", badge("paused", _("paused")), age_html(channel.paused_at))
        if channel.probe_at:
            return format_html("{} {}", badge("failing", _("failing, probed")), age_html(channel.probe_at))
        if channel.release_at:
            return badge("resumed", _("well, letting go what waited"))
        return badge("well", _("well"))

    @admin.display(description=_("last test"))
    def last_test(self, channel: UserNotificationChannel) -> SafeString:
        """Return how the last test message went, and when."""
        result = badge(channel.last_test_status or "never", channel.get_last_test_status_display())
        return format_html("{} {}", result, age_html(channel.last_test_at)) if channel.last_test_at else result


@sensitive_variables()
def _shown(secret: Secret, show: Callable[[str], str]) -> SafeString | str:
    """Return what `show` makes of the plain value, or a badge saying that nobody can read it."""
    try:
        plain = secret.reveal()
    except SecretUnreadable:
        return badge("unreadable", _("cannot be read: key missing"))
    return show(plain) if plain else EMPTY_VALUE
