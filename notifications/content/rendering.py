"""Builds the text that a user reads: trims and cuts it, replaces text with external links, adds the site path."""

from __future__ import annotations

from typing import Any, NamedTuple

from notifications.conf import service_options
from notifications.content.links import contains_external_link, contains_path
from notifications.content.text import drop_half_character, is_visible, trim, truncate_text, whole_characters
from notifications.states import TextReplaced


class MessageTemplate(NamedTuple):
    """The texts of a message as they are stored."""

    summary_text: str
    fallback_text: str
    fallback_used: bool


def normalize_message_template(summary: str, fallback: str, max_runes: int) -> MessageTemplate:
    """Choose the texts to store: the summary, or the fallback in place of a summary that cannot be sent.

    A summary cannot be sent if it is blank or contains an external link. FALLBACK_TEXT replaces a fallback that is
    blank, or that is needed and contains a link itself. It is needed for an invisible summary too, which is stored
    as the Go service stored it.

    Args:
        summary: The request's summary.
        fallback: The request's fallback.
        max_runes: Code points of the summary that are kept.

    Returns:
        The texts. `fallback_used` is True if the fallback is sent; then the summary is empty.
    """
    summary, fallback = trim(summary), trim(fallback) or service_options().fallback_text
    if summary and not contains_external_link(summary):
        cut = trim(truncate_text(summary, max_runes))
        return MessageTemplate(cut, fallback if is_visible(cut) else _without_links(fallback), False)
    return MessageTemplate("", _without_links(fallback), True)


def find_replaced_texts(summary: str, fallback: str, stored: MessageTemplate) -> dict[str, dict[str, Any]]:
    """Return the texts of a request that are not stored as they were given, apart from white space at their ends.

    Args:
        summary: The request's summary.
        fallback: The request's fallback.
        stored: What `normalize_message_template` made of them.

    Returns:
        By field, the given text and a value of `TextReplaced` as `reason`; for a summary that was cut within a
        character also `shown`, the code points that are sent. Empty if all is stored as it was given.
    """
    replaced: dict[str, dict[str, Any]] = {}
    summary = trim(summary)
    if reason := _why_replaced(summary, stored):
        replaced["summary_text"] = {"reason": reason.value, "text": summary}
        length = len(stored.summary_text)
        if reason == TextReplaced.TOO_LONG and (shown := whole_characters(summary, length)) < length:
            replaced["summary_text"]["shown"] = shown
    if (fallback := trim(fallback)) and fallback != stored.fallback_text:
        replaced["fallback_text"] = {"reason": TextReplaced.EXTERNAL_LINK.value, "text": fallback}
    return replaced


def _why_replaced(summary: str, stored: MessageTemplate) -> TextReplaced | None:
    if summary and stored.fallback_used:
        return TextReplaced.EXTERNAL_LINK
    if summary and not is_visible(stored.summary_text):
        return TextReplaced.INVISIBLE
    return TextReplaced.TOO_LONG if summary != stored.summary_text else None


def shown_summary(summary: str, replaced_texts: dict[str, dict[str, Any]] | None) -> str:
    """Return the part of a stored summary that is sent: all of it, or its whole characters if it was cut in one.

    Args:
        summary: The stored summary.
        replaced_texts: What `find_replaced_texts` returned for it; None for nothing.
    """
    return summary[: (replaced_texts or {}).get("summary_text", {}).get("shown")]


def build_message_text(*, summary: str, fallback: str, fallback_used: bool, target_url: str) -> tuple[str, bool]:
    """Build the text to send from a stored record.

    The fallback also replaces a summary without a visible character. As in the Go service, that does not change
    `fallback_used`. A fallback is judged when it is stored, and once more here, because other programs write to the
    table too. The site path is added on its own line, unless the text already contains exactly that path.

    Args:
        summary: The stored summary.
        fallback: The stored fallback.
        fallback_used: Whether the record says that the fallback is sent.
        target_url: The site path of the record.

    Returns:
        The text, and `fallback_used` as it was given.
    """
    options = service_options()
    if fallback_used or not is_visible(summary):
        text = _without_links(trim(fallback) or options.fallback_text)
    else:  # a text of this length may have been cut by an earlier version, which kept no `shown`
        text = drop_half_character(summary) if len(summary) >= options.summary_max_runes else summary
    url = trim(target_url)
    return (text if not url or contains_path(text, url) else f"{text}\n{url}"), fallback_used


def _without_links(text: str) -> str:
    return service_options().fallback_text if contains_external_link(text) else text
