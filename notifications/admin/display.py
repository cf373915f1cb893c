"""HTML for values: escaped, isolated from the text direction around them, and truncated if long."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Field, Model
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _, ngettext

from notifications.clock import page_now
from notifications.content.text import escape_invisible

MAX_BLOCK_LENGTH = 10_000
"""Characters of a long text that are shown, to keep pages small."""
EMPTY_VALUE = "–"
"""Shown in place of a missing value."""
MINUTE_SECONDS = 60

STYLE = {"all": ("notifications/admin.css",)}


def badge(kind: str, text: str | Promise) -> SafeString:
    """Return a coloured badge. The text alone must state the same as the colour.

    Args:
        kind: Suffix of the CSS class `n-...` that gives the colour.
        text: The text of the badge.
    """
    return format_html('<span class="n-badge n-{}">{}</span>', kind, text)


def isolated(text: object) -> SafeString:
    """Return escaped text in a `<bdi>` element, so that its writing direction does not affect the text around it."""
    return format_html("<bdi>{}</bdi>", escape_invisible(str(text)))


def user_link(user: AbstractBaseUser) -> SafeString:
    """Return the user's name, as a link if the admin has a page for users."""
    name = isolated(user.get_username())
    if not admin.site.is_registered(type(user)):
        return name
    url = reverse(f"admin:{user._meta.app_label}_{user._meta.model_name}_change", args=[quote(user.pk)])
    return format_html('<a href="{}">{}</a>', url, name)


def column(model: type[Model], name: str) -> Callable[[Any, Model], SafeString | str]:
    """Return an admin column that shows the text of a model field, isolated by `<bdi>` because it is external input."""
    field = cast("Field[Any, Any]", model._meta.get_field(name))

    @admin.display(description=field.verbose_name)
    def show(self: object, row: Model) -> SafeString | str:
        text = getattr(row, name)
        return isolated(text) if text else EMPTY_VALUE

    return show


def text_block(text: str, max_length: int = MAX_BLOCK_LENGTH) -> SafeString | str:
    """Return a preformatted block with the first `max_length` characters of text, and a note if it was truncated."""
    if not text:
        return EMPTY_VALUE
    shown = format_html('<pre class="n-block" tabindex="0">{}</pre>', escape_invisible(text[:max_length]))
    if len(text) <= max_length:
        return shown
    note = ngettext(
        "Truncated: the first %(shown)d of %(all)d character.",
        "Truncated: the first %(shown)d of %(all)d characters.",
        len(text),
    ) % {"shown": max_length, "all": len(text)}
    return format_html('{}<p class="n-cut">{}</p>', shown, note)


def json_block(value: Any) -> SafeString | str:
    """Return the value of a JSON column as an indented block."""
    return text_block("" if value is None else _pretty(value))


def json_or_text_block(text: str) -> SafeString | str:
    """Return text as an indented block if it is JSON, else unchanged."""
    try:
        return text_block(_pretty(json.loads(text)))
    except (ValueError, RecursionError):
        return text_block(text)


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def format_time(value: datetime) -> str:
    """Return a time to the second with its time zone."""
    return date_format(timezone.localtime(value), "Y-m-d H:i:s T")


def format_age(value: datetime) -> str:
    """Return the distance of a time from now, as in "3 minutes ago" or "in 3 minutes"."""
    now = page_now()
    seconds = (value - now).total_seconds()
    if seconds > 0:
        return (
            _("in less than a minute")
            if seconds < MINUTE_SECONDS
            else _("in %(time)s") % {"time": timeuntil(value, now, depth=1)}
        )
    return _("just now") if seconds > -MINUTE_SECONDS else _("%(time)s ago") % {"time": timesince(value, now, depth=1)}


def time_html(value: datetime | None) -> SafeString | str:
    """Return the full time followed by its distance from now."""
    if value is None:
        return EMPTY_VALUE
    return format_html('<time datetime="{}">{}</time> ({})', value.isoformat(), format_time(value), format_age(value))


def age_html(value: datetime | None, text: str = "") -> SafeString | str:
    """Return the distance of a time from now, or `text` instead. The full time is shown as a tooltip."""
    if value is None:
        return EMPTY_VALUE
    shown = text or format_age(value)
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), format_time(value), shown)
