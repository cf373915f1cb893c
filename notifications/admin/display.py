"""How values are shown: escaped, set apart from the text around them, and cut where they are long."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from django.contrib import admin
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

from notifications.content.text import escape_invisible

MAX_BLOCK_LENGTH = 10_000
"""Characters of a long text that are shown: enough to judge it, and the page stays light."""
EMPTY_VALUE = "–"
"""Stands where there is no value."""
MINUTE = 60

STYLE = {"all": ("notifications/admin.css",)}


def badge(kind: str, text: str | Promise) -> SafeString:
    """Return text in the colour of its kind; the text alone says it too."""
    return format_html('<span class="n-badge n-{}">{}</span>', kind, text)


def isolated(text: object) -> SafeString:
    """Return text whose writing direction cannot turn its surroundings around."""
    return format_html("<bdi>{}</bdi>", escape_invisible(str(text)))


def user_link(user: AbstractBaseUser) -> SafeString:
    """Return the user's name with a link to them, if the admin has a page for users."""
    name = isolated(user.get_username())
    if not admin.site.is_registered(type(user)):
        return name
    url = reverse(f"admin:{user._meta.app_label}_{user._meta.model_name}_change", args=[user.pk])
    return format_html('<a href="{}">{}</a>', url, name)


def column(model: type[Model], name: str) -> Callable[[Any, Model], SafeString | str]:
    """Return an admin column that shows the text of a field, set apart: it comes from elsewhere."""
    field = cast("Field[Any, Any]", model._meta.get_field(name))

    @admin.display(description=field.verbose_name)
    def show(self: object, row: Model) -> SafeString | str:
        text = getattr(row, name)
        return isolated(text) if text else EMPTY_VALUE

    return show


def text_block(text: str, most: int = MAX_BLOCK_LENGTH) -> SafeString | str:
    """Return a preformatted block with the first `most` characters of text, and a note where it was cut."""
    if not text:
        return EMPTY_VALUE
    shown = format_html('<pre class="n-block" tabindex="0">{}</pre>', escape_invisible(text[:most]))
    if len(text) <= most:
        return shown
    note = ngettext(
        "Cut: the first %(shown)d of %(all)d character.", "Cut: the first %(shown)d of %(all)d characters.", len(text)
    ) % {"shown": most, "all": len(text)}
    return format_html('{}<p class="n-cut">{}</p>', shown, note)


def json_block(value: Any) -> SafeString | str:
    """Return JSON from a column, as people read it."""
    return text_block("" if value is None else _pretty(value))


def json_or_text_block(text: str) -> SafeString | str:
    """Return text that may be JSON: as people read it, or else as it came."""
    try:
        return text_block(_pretty(json.loads(text)))
    except (ValueError, RecursionError):
        return text_block(text)


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def format_time(value: datetime) -> str:
    """Return a time to the second with its zone."""
    return date_format(timezone.localtime(value), "Y-m-d H:i:s T")


def format_age(value: datetime) -> str:
    """Return how long ago, or how soon."""
    seconds = (value - timezone.now()).total_seconds()
    if seconds > 0:
        return (
            _("in less than a minute") if seconds < MINUTE else _("in %(time)s") % {"time": timeuntil(value, depth=1)}
        )
    return _("just now") if seconds > -MINUTE else _("%(time)s ago") % {"time": timesince(value, depth=1)}


def time_html(value: datetime | None) -> SafeString | str:
    """Return the time in full, with how far it is from now."""
    if value is None:
        return EMPTY_VALUE
    return format_html('<time datetime="{}">{}</time> ({})', value.isoformat(), format_time(value), format_age(value))


def age_html(value: datetime | None, text: str = "") -> SafeString | str:
    """Return how far a time is from now, or what `text` says of it; the time in full shows on pointing at it."""
    if value is None:
        return EMPTY_VALUE
    shown = text or format_age(value)
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), format_time(value), shown)
