"""Columns of the list of records and fields of the page of one record."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.utils import label_for_field
from django.core.exceptions import ObjectDoesNotExist
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy as _, pgettext

from notifications.admin.display import (
    EMPTY_VALUE,
    age_html,
    badge,
    column,
    format_age,
    isolated,
    json_block,
    text_block,
    time_html,
    user_link,
)
from notifications.clock import page_now
from notifications.conf import service_options
from notifications.content.links import site_link
from notifications.content.rendering import build_message_text, shown_summary
from notifications.content.text import escape_invisible
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.states import Status, TextReplaced

MAX_COUNTED_RECORDS = 100
"""Records with the same identifier are counted up to this number."""


def _identifier_with_link(record: NotificationRecord, field: str, parameter: str) -> SafeString | str:
    value = getattr(record, field)
    if not value:
        return EMPTY_VALUE
    count = NotificationRecord.objects.filter(**{field: value})[: MAX_COUNTED_RECORDS + 1].count()
    if count == 1:
        return isolated(value)
    url = f"{reverse('admin:notifications_notificationrecord_changelist')}?{urlencode({parameter: value})}"
    number = f"{MAX_COUNTED_RECORDS}+" if count > MAX_COUNTED_RECORDS else count
    text = gettext("%(count)s notifications with this id") % {"count": number}
    return format_html('{} (<a href="{}">{}</a>)', isolated(value), url, text)


def _endpoint_label(record: NotificationRecord) -> str:
    """Return the label of the endpoint that a record names; its number if it was deleted."""
    try:
        endpoint = record.endpoint
    except ObjectDoesNotExist:
        endpoint = None
    return endpoint.shown_label if endpoint else f"#{record.endpoint_id}"


class RecordColumns:
    """Mixin with one method for each column or field."""

    trigger = column(NotificationRecord, "trigger_id")
    kind_of_trigger = column(NotificationRecord, "trigger_type")
    kind_of_target = column(NotificationRecord, "target_type")
    path = column(NotificationRecord, "target_url")
    message_id = column(NotificationRecord, "provider_message_id")

    @admin.display(description=_("trace id"))
    def trace(self, record: NotificationRecord) -> SafeString | str:
        """Return the id, with a link to all records that have the same id."""
        return _identifier_with_link(record, "trace_id", "trace")

    @admin.display(description=_("preview id"))
    def preview(self, record: NotificationRecord) -> SafeString | str:
        """Return the id, with a link to all records that have the same id."""
        return _identifier_with_link(record, "preview_id", "preview")

    @admin.display(description=_("status"))
    def state(self, record: NotificationRecord) -> SafeString:
        """Return the status as a coloured badge, and why the record is held."""
        status = badge(record.status, record.get_status_display())
        return format_html("{} {}", status, record.get_hold_reason_display()) if record.hold_reason else status

    @admin.display(description=_("dedupe key"))
    def key(self, record: NotificationRecord) -> SafeString:
        """Return the key, isolated by `<bdi>` because it is external input."""
        return isolated(record.dedupe_key)

    @admin.display(description=_("recipient"))
    def owner(self, record: NotificationRecord) -> SafeString | str:
        """Return a link to the user, or the key of a user that does not exist, and the label of the endpoint."""
        label = isolated(_endpoint_label(record)) if record.endpoint_id is not None else ""
        if record.user_id is None:
            return label or EMPTY_VALUE
        try:
            user = record.user
        except ObjectDoesNotExist:
            user = None
        shown = user_link(user) if user else isolated(record.user_id)
        return format_html("{} {}", shown, label) if label else shown

    @admin.display(description=_("error code"))
    def code(self, record: NotificationRecord) -> SafeString | str:
        """Return the code of the last error. It may wrap only after an underscore."""
        parts = re.split("(?<=_)", record.last_error_code)
        return (
            format_html_join("", "{}<wbr>", ((escape_invisible(part),) for part in parts))
            if any(parts)
            else EMPTY_VALUE
        )

    @admin.display(description=_("attempts"))
    def attempts(self, record: NotificationRecord) -> str:
        """Return the attempts made and the attempts allowed, as in "3 / 5"."""
        return f"{record.attempt_count} / {record.max_attempts}"

    @admin.display(description=_("next attempt"))
    def next_attempt(self, record: NotificationRecord) -> SafeString | str:
        """Return the time of the next attempt in words, for the list."""
        due, now = record.next_attempt_at, page_now()
        if record.status == Status.SENDING:
            lease_ended = due is not None and due <= now
            return gettext("worker lost") if lease_ended else gettext("being sent")
        if due and due <= now:
            overdue = now - due > timedelta(minutes=1)
            return age_html(due, gettext("due %(when)s") % {"when": format_age(due)} if overdue else gettext("due now"))
        return age_html(due)

    @admin.display(description=_("age"), ordering="created_at")
    def requested(self, record: NotificationRecord) -> SafeString | str:
        """Return the time since the request."""
        return age_html(record.created_at)

    @admin.display(description=_("next attempt"))
    def next_time(self, record: NotificationRecord) -> SafeString | str:
        """Return the time of the next attempt, or the end of the lease of the current one."""
        return time_html(record.next_attempt_at)

    @admin.display(description=_("requested"))
    def requested_time(self, record: NotificationRecord) -> SafeString | str:
        """Return the time of the request."""
        return time_html(record.created_at)

    @admin.display(description=_("changed"))
    def changed_time(self, record: NotificationRecord) -> SafeString | str:
        """Return the time of the last change."""
        return time_html(record.updated_at)

    @admin.display(description=_("delivered at"))
    def sent_time(self, record: NotificationRecord) -> SafeString | str:
        """Return the time of delivery."""
        return time_html(record.sent_at)

    @admin.display(description=_("error"))
    def error(self, record: NotificationRecord) -> SafeString | str:
        """Return the text of the last error, as the endpoint or the app reported it."""
        return text_block(record.last_error)

    @admin.display(description=_("text as sent"))
    def message(self, record: NotificationRecord) -> SafeString | str:
        """Return the text exactly as it is sent, and the address of its link."""
        text = record.summary_text
        if record.content is None:
            text, _fallback = build_message_text(
                summary=shown_summary(record.summary_text, record.replaced_texts),
                fallback=record.fallback_text,
                fallback_used=record.fallback_used,
                target_url=record.target_url,
            )
        base, link = service_options().frontend_base_url, record.target_url
        if link.startswith("/"):
            link = site_link(base, link) if base else ""
        if not link:
            return text_block(text)
        return format_html("{}<p>{} <bdi>{}</bdi></p>", text_block(text), gettext("Link:"), escape_invisible(link))

    heading = column(NotificationRecord, "title")
    message_kind = column(NotificationRecord, "kind")
    order = column(NotificationRecord, "order_key")

    @admin.display(description=_("key"))
    def caller_key(self, record: NotificationRecord) -> SafeString | str:
        """Return the caller's key, with a link to all records that have the same key."""
        return _identifier_with_link(record, "request_key", "request")

    @admin.display(description=_("content"))
    def content_json(self, record: NotificationRecord) -> SafeString | str:
        """Return what the message has beside its text and link, and its changes."""
        return json_block(record.content)

    @admin.display(description=_("endpoint"))
    def endpoint_link(self, record: NotificationRecord) -> SafeString | str:
        """Return a link to the user's channel, with a badge of its state."""
        channels = UserNotificationChannel.objects.of_record(record)
        channel = channels.only("enabled", "paused_at", "channel").first()
        if channel is None:
            return gettext("The recipient has no such endpoint.")
        url = reverse("admin:notifications_usernotificationchannel_change", args=[channel.pk])
        state = (
            badge("paused", pgettext("state of a channel", "paused"))
            if channel.paused_at
            else badge("on", _("enabled"))
            if channel.enabled
            else badge("never", _("disabled"))
        )
        return format_html('<a href="{}">{}</a> {}', url, isolated(f"{channel.channel} #{channel.pk}"), state)

    @admin.display(description=_("summary"))
    def summary(self, record: NotificationRecord) -> SafeString | str:
        """Return the summary text of the request."""
        return text_block(record.summary_text)

    @admin.display(description=_("fallback text"))
    def fallback(self, record: NotificationRecord) -> SafeString | str:
        """Return the text that is sent if the summary cannot be used."""
        return text_block(record.fallback_text)

    @admin.display(description=_("replaced texts"))
    def replaced(self, record: NotificationRecord) -> SafeString | str:
        """Return the texts that are not sent as they were given, each with the reason."""
        texts = record.replaced_texts or {}
        return (
            format_html_join(
                "",
                "<p>{}: {}</p>{}",
                (
                    (
                        label_for_field(field, NotificationRecord),
                        TextReplaced(replaced["reason"]).label,
                        text_block(replaced["text"]),
                    )
                    for field, replaced in sorted(texts.items(), reverse=True)
                ),
            )
            or EMPTY_VALUE
        )

    @admin.display(description=_("request sent"))
    def request_json(self, record: NotificationRecord) -> SafeString | str:
        """Return the JSON last sent to the endpoint."""
        return json_block(record.provider_request)

    @admin.display(description=_("response received"))
    def response_json(self, record: NotificationRecord) -> SafeString | str:
        """Return the JSON of the endpoint's last response."""
        return json_block(record.provider_response)
