"""What is not taken as it was given is named in the answer and logged: replaced texts are kept, duplicates counted."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from notifications.api import request_notification, request_notifications
from notifications.content.rendering import shown_summary
from notifications.models import NotificationRecord
from notifications.providers.memory import MemoryProvider
from notifications.service import NotificationService
from tests.support.payloads import payload

pytestmark = pytest.mark.django_db

LINK = "see https://evil.example"
LONG = "字" * 181


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, "notifications.service")
    return lambda: [record for record in caplog.records if getattr(record, "event", "") == "request.text_replaced"]


def test_each_replaced_text_is_kept_named_and_logged(lines: Any) -> None:
    cases: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
        "a link in the summary": ({"summary_text": LINK}, {"summary_text": "external_link"}, "WARNING"),
        "a link in both": (
            {"summary_text": LINK, "fallback_text": LINK},
            {"summary_text": "external_link", "fallback_text": "external_link"},
            "WARNING",
        ),
        "a link in the fallback of a blank summary": (
            {"summary_text": " ", "fallback_text": LINK},
            {"fallback_text": "external_link"},
            "WARNING",
        ),
        "an invisible summary": ({"summary_text": "\u200b\u2060"}, {"summary_text": "invisible"}, "WARNING"),
        "an invisible beginning": (
            {"summary_text": "\u200b" * 180 + "text"},
            {"summary_text": "invisible"},
            "WARNING",
        ),
        "a link in the fallback of an invisible summary": (
            {"summary_text": "\u200b", "fallback_text": LINK},
            {"summary_text": "invisible", "fallback_text": "external_link"},
            "WARNING",
        ),
        "a long summary": ({"summary_text": LONG}, {"summary_text": "too_long"}, "INFO"),
    }
    for number, (name, (given, reasons, level)) in enumerate(cases.items(), 1):
        accepted = request_notification(payload(dedupe_key=name, **given))

        record = NotificationRecord.objects.get(pk=accepted.record_id)
        expected = {field: {"reason": reason, "text": given[field]} for field, reason in reasons.items()}
        assert record.replaced_texts == expected, name
        assert sorted(accepted.replaced) == sorted(reasons), name
        line = lines()[-1]
        assert (len(lines()), line.record_id, line.reasons, line.levelname) == (number, record.pk, reasons, level), name
        assert "evil" not in line.getMessage()


def test_a_text_that_is_sent_as_it_was_given_is_not_kept_twice(lines: Any) -> None:
    texts = [
        {"summary_text": "  把「学习 Node.js/Vue.js 第三章」改到周四\n"},
        {"summary_text": "字" * 180, "fallback_text": LINK},  # the fallback is not needed
        {"summary_text": "", "fallback_text": ""},
    ]
    for number, given in enumerate(texts):
        accepted = request_notification(payload(dedupe_key=str(number), **given))

        assert accepted.replaced == (), given
        assert NotificationRecord.objects.get(pk=accepted.record_id).replaced_texts is None, given
    assert lines() == []


def test_a_duplicate_replaces_nothing_and_each_request_of_many_has_its_own_answer() -> None:
    many = [
        payload(dedupe_key="a", summary_text=LINK),
        payload(dedupe_key="b"),
        payload(dedupe_key="a", summary_text=LINK),
    ]

    first, second, third = request_notifications(many)

    assert (first.replaced, second.replaced) == (("summary_text",), ())
    assert (third.reused, third.replaced) == (True, ())


@pytest.mark.django_db(transaction=True)
def test_a_summary_is_sent_without_the_half_of_a_character(memory: MemoryProvider) -> None:
    """The record keeps the 180 code points that the Go service keeps."""
    service = NotificationService(providers={"feishu": memory})
    whole = {"a flag": "🇨🇳", "a family": "👨\u200d👩\u200d👧", "an accent": "e\u0301", "a skin tone": "👍🏽"}
    whole |= {"a keycap": "1\ufe0f\u20e3", "a heart": "❤\ufe0f", "England": "🏴\U000e0067\U000e0062\U000e007f"}
    whole |= {"a syllable": "\u1112\u1161\u11ab", "a vowel sign": "क\u093f", "two flags": "🇨🇳🇩🇪"}
    for name, character in whole.items():
        for kept in range(1, len(character)):
            start = "字" * (180 - kept)
            shown = start + (character[:2] if name == "two flags" and kept > 1 else "")
            request = payload(dedupe_key=f"{name} {kept}", summary_text=f"{start}{character}字")

            result = service.handle_feishu_requested(request)

            assert memory.requests[-1].message_text.partition("\n")[0] == shown, (name, kept)
            record = NotificationRecord.objects.get(pk=result.record_id)
            assert record.summary_text == f"{start}{character}"[:180], (name, kept)
            assert shown_summary(record.summary_text, record.replaced_texts) == shown, (name, kept)


def test_duplicates_are_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "notifications.service")
    first = request_notification(payload(dedupe_key="a"))
    assert "request.duplicate" not in [getattr(record, "event", "") for record in caplog.records]

    request_notifications([payload(dedupe_key=key, summary_text="other") for key in ("a", "b", "a")])

    [line] = [record for record in caplog.records if getattr(record, "event", "") == "request.duplicate"]
    assert (vars(line)["count"], vars(line)["record_ids"]) == (2, [first.record_id] * 2)
    assert line.getMessage() == "2 of 3 requests are duplicates and change nothing"
