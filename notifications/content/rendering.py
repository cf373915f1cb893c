"""Builds the text that a user reads: trims and cuts it, replaces text with external links, adds the site path."""

from __future__ import annotations

from typing import NamedTuple

from notifications.conf import service_options
from notifications.content.links import contains_external_link, contains_path
from notifications.content.text import is_visible, trim, truncate_text


class MessageTemplate(NamedTuple):
    """The texts of a message as they are stored."""

    summary_text: str
    fallback_text: str
    fallback_used: bool


def normalize_message_template(summary: str, fallback: str, max_runes: int) -> MessageTemplate:
    """Choose the texts to store: the summary, or the fallback in place of a summary that cannot be sent.

    A summary cannot be sent if it is blank or contains an external link. FALLBACK_TEXT replaces a fallback that is
    blank, or that is needed and contains a link itself.

    Args:
        summary: The request's summary.
        fallback: The request's fallback.
        max_runes: Code points of the summary that are kept.

    Returns:
        The texts. `fallback_used` is True if the fallback is sent; then the summary is empty.
    """
    summary, fallback = trim(summary), trim(fallback) or service_options().fallback_text
    if summary and not contains_external_link(summary):
        return MessageTemplate(trim(truncate_text(summary, max_runes)), fallback, False)
    return MessageTemplate("", _without_links(fallback), True)


def build_message_text(*, summary: str, fallback: str, fallback_used: bool, target_url: str) -> tuple[str, bool]:
    """Build the text to send from a stored record.

    The fallback also replaces a summary without a visible character. As in the Go service, that does not change
    `fallback_used`. The site path is added on its own line, unless the text already contains exactly that path.

    Args:
        summary: The stored summary.
        fallback: The stored fallback.
        fallback_used: Whether the record says that the fallback is sent.
        target_url: The site path of the record.

    Returns:
        The text, and `fallback_used` as it was given.
    """
    use_fallback = fallback_used or not is_visible(summary)
    text = _without_links(trim(fallback) or service_options().fallback_text) if use_fallback else summary
    url = trim(target_url)
    return (text if not url or contains_path(text, url) else f"{text}\n{url}"), fallback_used


def _without_links(text: str) -> str:
    return service_options().fallback_text if contains_external_link(text) else text
