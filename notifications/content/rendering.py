"""The text a user reads: trimming, cutting, refusing links, and adding our own."""

from __future__ import annotations

from typing import NamedTuple

from notifications.conf import service_options
from notifications.content.links import contains_external_link, contains_path
from notifications.content.text import is_visible, trim, truncate_text


class MessageTemplate(NamedTuple):
    """What is stored of a message."""

    summary_text: str
    fallback_text: str
    fallback_used: bool


def normalize_message_template(summary: str, fallback: str, max_runes: int) -> MessageTemplate:
    """Decide what is stored: the summary cut to `max_runes` code points, or the fallback.

    The fallback stands in for a summary that is blank or holds an external link. A fallback that is blank, or that is
    needed and holds a link itself, gives way to the built-in text.
    """
    summary, fallback = trim(summary), trim(fallback) or service_options().fallback_text
    if summary and not contains_external_link(summary):
        return MessageTemplate(trim(truncate_text(summary, max_runes)), fallback, False)
    return MessageTemplate("", _linkless(fallback), True)


def build_message_text(*, summary: str, fallback: str, fallback_used: bool, target_url: str) -> tuple[str, bool]:
    """Return the text to send, and whether the record says that it is the fallback.

    The fallback also stands in for a summary that shows nothing; as in the Go service, the flag is not raised by that.
    The site path is added on a line of its own unless the text already holds exactly that path.
    """
    use_fallback = fallback_used or not is_visible(summary)
    text = _linkless(trim(fallback) or service_options().fallback_text) if use_fallback else summary
    url = trim(target_url)
    return (text if not url or contains_path(text, url) else f"{text}\n{url}"), fallback_used


def _linkless(text: str) -> str:
    return service_options().fallback_text if contains_external_link(text) else text
