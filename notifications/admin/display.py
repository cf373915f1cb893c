"""How values are shown: escaped, set apart from the text around them, and cut where they are long."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _, ngettext

SHOWN = 10_000
"""Characters of a long text that are shown: enough to judge it, and the page stays light."""
NOTHING = "–"
"""Stands where there is no value."""
MINUTE = 60

# What turns text around, hides in it or cannot be encoded; not the joiners that emoji and some scripts need.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)

STYLE = {"all": ("notifications/admin.css",)}


def badge(kind: str, text: str | Promise) -> SafeString:
    """Return text in the colour of its kind; the text alone says it too."""
    return format_html('<span class="n-badge n-{}">{}</span>', kind, text)


def isolated(text: object) -> SafeString:
    """Return text whose writing direction cannot turn its surroundings around."""
    return format_html("<bdi>{}</bdi>", visible(str(text)))


def visible(text: str) -> str:
    """Return text with characters that cannot be seen written as JSON escapes."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def block(text: str) -> SafeString | str:
    """Return a preformatted block with the beginning of text, and a note where it was cut."""
    if not text:
        return NOTHING
    shown = format_html('<pre class="n-block">{}</pre>', visible(text[:SHOWN]))
    if len(text) <= SHOWN:
        return shown
    note = ngettext(
        "Cut: the first %(shown)d of %(all)d character.", "Cut: the first %(shown)d of %(all)d characters.", len(text)
    ) % {"shown": SHOWN, "all": len(text)}
    return format_html('{}<p class="n-cut">{}</p>', shown, note)


def json_block(value: Any) -> SafeString | str:
    """Return JSON from a column, as people read it."""
    try:
        return block("" if value is None else _pretty(value))
    except RecursionError:
        return _("Nested too deeply to be shown.")


def text_block(text: str) -> SafeString | str:
    """Return text that may be JSON: as people read it, or else as it came."""
    try:
        return block(_pretty(json.loads(text)))
    except (ValueError, RecursionError):
        return block(text)


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def absolute(value: datetime) -> str:
    """Return a time to the second with its zone."""
    return date_format(timezone.localtime(value), "Y-m-d H:i:s T")


def relative(value: datetime) -> str:
    """Return how long ago, or how soon."""
    seconds = (value - timezone.now()).total_seconds()
    if seconds > 0:
        return (
            _("in less than a minute") if seconds < MINUTE else _("in %(time)s") % {"time": timeuntil(value, depth=1)}
        )
    return _("just now") if seconds > -MINUTE else _("%(time)s ago") % {"time": timesince(value, depth=1)}


def moment(value: datetime | None) -> SafeString | str:
    """Return the time in full, with how far it is from now."""
    if value is None:
        return NOTHING
    return format_html('<time datetime="{}">{}</time> ({})', value.isoformat(), absolute(value), relative(value))


def age(value: datetime | None, text: str = "") -> SafeString | str:
    """Return how far a time is from now, or what `text` says of it; the time in full shows on pointing at it."""
    if value is None:
        return NOTHING
    shown = text or relative(value)
    return format_html('<time datetime="{}" title="{}">{}</time>', value.isoformat(), absolute(value), shown)
