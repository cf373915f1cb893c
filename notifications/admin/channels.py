"""Users' channels. Addresses and tokens can be entered here but are never shown in full."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy as _, ngettext, pgettext
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from notifications.admin.base import BaseAdmin
from notifications.admin.channel_form import SECRETS, ChannelForm
from notifications.admin.display import EMPTY_VALUE, STYLE, age_html, badge, column, isolated, user_link
from notifications.admin.kind_preview import show_kinds
from notifications.admin.overview.charts import format_number
from notifications.api import resume_channel
from notifications.channels.test_message import describe_error, send_test_to_endpoint
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.security.address_secrets import mask_url
from notifications.security.secrets import Secret, SecretUnreadable
from notifications.states import HELD_BY_ENDPOINT, SCHEDULED, Status
from notifications.user_keys import to_user_key

MAX_COUNTED_RECORDS = 10_000
"""Waiting records that are counted. A larger number is shown as "10,000+"."""
MAX_TESTS_PER_REQUEST = 5
"""Channels that one request may test. The request waits for each endpoint in turn."""


@admin.register(UserNotificationChannel)
class UserNotificationChannelAdmin(BaseAdmin):
    """List and form of users' channels, with the actions "send test" and "resume"."""

    form = ChannelForm
    change_form_template = "admin/notifications/usernotificationchannel/change_form.html"
    change_list_template = "admin/notifications/usernotificationchannel/change_list.html"
    list_display = ("name", "channel", "enabled", "address", "health", "why_paused", "waiting", "last_test")
    list_display_links = ("name", "channel")
    list_filter = ("enabled", ("paused_at", admin.EmptyFieldListFilter), "last_test_status")
    list_select_related = ("user",)
    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("user",)  # shows the search box; get_search_results does the search
    search_help_text = _("The whole user name, a user id, or a label.")
    raw_id_fields = ("user",)
    empty_value_display = EMPTY_VALUE
    fieldsets = (
        (None, {"fields": ("user", "owner", "label", "shown_label", "channel", "enabled")}),
        (
            _("Endpoint"),
            {"fields": ("address", "new_webhook_url", "auth_type", "token", "new_bearer_token", "clear_token")},
        ),
        (
            _("State"),
            {"fields": ("health", "why_paused", "waiting", "failures", "last_test", "last_problem", "updated_at")},
        ),
    )
    readonly_fields = (
        *(
            "owner",
            "shown_label",
            "address",
            "token",
            "health",
            "why_paused",
            "waiting",
            "failures",
            "last_test",
            "last_problem",
        ),
        "updated_at",
    )

    actions = ("send_test", "resume")

    class Media:
        """The stylesheet of the admin pages."""

        css = STYLE

    @admin.action(description=_("Send a test message to the selected channels"), permissions=["change"])
    def send_test(
        self, request: HttpRequest, queryset: QuerySet[UserNotificationChannel]
    ) -> HttpResponseRedirect | None:
        """Send a test message to each selected channel and report the results. A success ends a pause."""
        selected = list(queryset.select_related("user")[: MAX_TESTS_PER_REQUEST + 1])
        if len(selected) > MAX_TESTS_PER_REQUEST:
            text = gettext("Select at most %(count)d channels. Each test waits for its endpoint.")
            self.message_user(request, text % {"count": MAX_TESTS_PER_REQUEST}, messages.WARNING)
            return None
        for channel in selected:
            record = send_test_to_endpoint(channel)
            self.log_change(request, channel, "Sent a test message.")
            values = {"channel": str(channel), "error": describe_error(record)}
            if record.status == Status.SENT:
                self.message_user(request, gettext("%(channel)s: the test message was delivered.") % values)
            else:
                text = gettext("%(channel)s: the test message was not delivered. %(error)s") % values
                self.message_user(request, text, messages.ERROR)
        return _back_to_page(request)

    @admin.action(description=_("Resume the selected channels"), permissions=["change"])
    def resume(self, request: HttpRequest, queryset: QuerySet[UserNotificationChannel]) -> HttpResponseRedirect | None:
        """Mark the endpoints as healthy. Held notifications are released, oldest first, at a limited rate."""
        unhealthy = queryset.exclude(paused_at=None, probe_at=None)
        resumed = [channel for channel in unhealthy if resume_channel(channel.pk)]
        for channel in resumed:
            self.log_change(request, channel, "Resumed.")
        text = ngettext("%(count)d channel was resumed.", "%(count)d channels were resumed.", len(resumed))
        self.message_user(request, text % {"count": len(resumed)})
        return _back_to_page(request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[UserNotificationChannel], search_term: str
    ) -> tuple[QuerySet[UserNotificationChannel], bool]:
        """Return the endpoints with this label, or of the user with this name or key.

        The key is not cast, so that its index is used.
        """
        if not (term := search_term.strip()):
            return queryset, False
        condition = Q(**{f"user__{get_user_model().USERNAME_FIELD}": term}) | Q(label=term)
        if (key := to_user_key(term)) is not None:
            condition |= Q(user_id=key)
        return queryset.filter(condition), False

    def get_urls(self) -> list[Any]:
        """Return the URLs of the admin, with the preview of templates."""
        kinds = path(
            "kinds/",
            self.admin_site.admin_view(lambda request: show_kinds(self, request)),
            name="notifications_usernotificationchannel_kinds",
        )
        return [kinds, *super().get_urls()]

    # A test message is claimed, sent and settled in transactions of their own.
    @transaction.non_atomic_requests
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Serve the list, also where the project has ATOMIC_REQUESTS."""
        return super().changelist_view(request, extra_context)

    @method_decorator(sensitive_post_parameters(*SECRETS))
    @method_decorator(sensitive_variables())
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Serve the form. Submitted secrets are kept out of error reports."""
        return super().changeform_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: UserNotificationChannel, form: Any, change: bool) -> None:
        """Save only the changed columns. A worker may have updated the others since they were read."""
        obj.save(update_fields=form.touched if change else None)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """Make user and channel read-only for a stored channel, so that an address cannot move to another user."""
        return (*self.readonly_fields, "user", "channel", "label") if obj else self.readonly_fields

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Omit the state of a new channel, and the inputs for users with view permission only."""
        hidden = set() if self.has_change_permission(request, obj) or obj is None else {*SECRETS, "clear_token"}
        hidden |= {"user", "label"} if obj else {"owner", "shown_label", "address", "token", "clear_token"}
        return [
            (title, {"fields": [name for name in options["fields"] if name not in hidden]})
            for title, options in self.fieldsets[: None if obj else -1]
        ]

    why_paused = column(UserNotificationChannel, "pause_reason")
    last_problem = column(UserNotificationChannel, "last_test_error")

    @admin.display(description=_("user"))
    def name(self, channel: UserNotificationChannel) -> SafeString:
        """Return the user's name, isolated from the text direction around it, and the label."""
        parts = [channel.user.get_username() if channel.user else "", channel.shown_label]
        return format_html_join(" / ", "{}", ((isolated(part),) for part in parts if part))

    @admin.display(description=_("user"))
    def owner(self, channel: UserNotificationChannel) -> SafeString | str:
        """Return a link to the user."""
        return user_link(channel.user) if channel.user else gettext("nobody")

    @admin.display(description=_("label"))
    def shown_label(self, channel: UserNotificationChannel) -> SafeString | str:
        """Return the label; of an endpoint that was made for an address, the address masked."""
        return isolated(channel.shown_label) if channel.label else EMPTY_VALUE

    @admin.display(description=_("webhook address"))
    def address(self, channel: UserNotificationChannel) -> SafeString | str:
        """Return the address with its key masked."""
        return _reveal(channel.webhook_url, mask_url)

    @admin.display(description=_("token or signing secret"))
    def token(self, channel: UserNotificationChannel) -> SafeString | str:
        """Return whether a token is stored."""
        return _reveal(channel.bearer_token, lambda token: gettext("stored"))

    @admin.display(description=_("endpoint"))
    def health(self, channel: UserNotificationChannel) -> SafeString:
        """Return the health of the endpoint, with the time since when it is paused."""
        if channel.paused_at:
            return _with_age(badge("paused", pgettext("state of a channel", "paused")), channel.paused_at)
        if channel.probe_at:
            return _with_age(badge("failing", _("failing, being probed")), channel.probe_at)
        if channel.release_at:
            return badge("resumed", _("healthy, releasing held messages"))
        return badge("well", _("healthy"))

    @admin.display(description=_("waiting"))
    def waiting(self, channel: UserNotificationChannel) -> SafeString | str:
        """Return the number of records that wait for the endpoint, with the list of them."""
        if not (channel.paused_at or channel.probe_at or channel.release_at):
            return EMPTY_VALUE
        held = NotificationRecord.objects.of_endpoint(channel)
        held = held.filter(hold_reason__in=HELD_BY_ENDPOINT, status__in=SCHEDULED)
        count = held[: MAX_COUNTED_RECORDS + 1].count()
        shown = format_number(count) if count <= MAX_COUNTED_RECORDS else f"{format_number(MAX_COUNTED_RECORDS)}+"
        of_user = channel.user_id is not None and not channel.label
        owner = {"user_id": channel.user_id} if of_user else {"endpoint_id": channel.pk}
        query = urlencode({"now": "held", **owner, "channel": channel.channel})
        url = f"{reverse('admin:notifications_notificationrecord_changelist')}?{query}"
        return format_html('<a href="{}">{}</a>', url, shown)

    @admin.display(description=_("last test"))
    def last_test(self, channel: UserNotificationChannel) -> SafeString:
        """Return the result and the time of the last test message."""
        result = badge(channel.last_test_status or "never", channel.get_last_test_status_display())
        return _with_age(result, channel.last_test_at) if channel.last_test_at else result


def _back_to_page(request: HttpRequest) -> HttpResponseRedirect | None:
    """Return to the page of the channel if a button of it started the action."""
    pks = request.POST.getlist(ACTION_CHECKBOX_NAME)
    if "from_page" not in request.POST or len(pks) != 1:
        return None
    return HttpResponseRedirect(reverse("admin:notifications_usernotificationchannel_change", args=pks))


def _with_age(state: SafeString, time: datetime) -> SafeString:
    return format_html(gettext("%(state)s %(when)s") % {"state": "{}", "when": "{}"}, state, age_html(time))


@sensitive_variables()
def _reveal(secret: Secret, render: Callable[[str], str]) -> SafeString | str:
    """Return `render` applied to the decrypted value, or a badge if the value cannot be decrypted."""
    try:
        plain = secret.reveal()
    except SecretUnreadable:
        return badge("unreadable", _("cannot be decrypted: key missing"))
    return render(plain) if plain else EMPTY_VALUE
