"""No part of an endpoint's address or token is stored, wherever it stands in the address and however it is echoed."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from hypothesis import given, strategies as st

from notifications.providers.answer_redaction import MASK, Redactor
from notifications.providers.attempt import without_secrets
from notifications.providers.base import SendResult
from notifications.security.address_secrets import mask_url, secret_parts

TOKEN = "canary-7Qx2vL9/+=k3"
"""Has characters that each of the forms escapes."""
PLAIN_TOKEN = "3f2a8b1c-7e5d-4canary"

PLACES: dict[str, str] = {
    "a segment": "https://host.example/hooks/{}",
    "a segment with a slash after it": "https://host.example/hooks/{}/",
    "a segment in the middle": "https://ping.example/{}/start",
    "the first of two segments": "https://ping.example/{}",
    "a value of the query": "https://host.example/hook?key={}",
    "the second value of the query": "https://host.example/hook?v=1&key={}",
    "the whole query": "https://host.example/hook?{}",
    "a path parameter": "https://host.example/hook;key={}",
    "the fragment": "https://host.example/hook#{}",
    "the user": "https://{}@host.example/hook",
    "the password": "https://user:{}@host.example/hook",
    "the key of a bot": "https://open.feishu.cn/open-apis/bot/v2/hook/{}",
    "the key of a flow": "https://www.feishu.cn/flow/api/trigger-webhook/{}",
}
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "percent-encoded": lambda text: quote(text, safe=""),
    "each character percent-encoded": lambda text: "".join(f"%{ord(character):02x}" for character in text),
    "percent-encoded twice": lambda text: quote(quote(text, safe=""), safe=""),
    "JSON": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "JSON with escapes for all": lambda text: "".join(f"\\u{ord(character):04X}" for character in text),
    "a literal of JavaScript": lambda text: "".join(f"\\x{ord(character):02x}" for character in text),
    "HTML": lambda text: html.escape(text).replace("/", "&#x2F;"),
    "HTML with numbers for all": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "capital letters": str.upper,
    "small letters": str.lower,
}


def redact_secrets(value: Any, secrets: list[str], segments: Sequence[str]) -> Any:
    return Redactor(secrets, segments).redact(value)


def leaks(redacted: Any, token: str) -> bool:
    """Return whether six characters of the token in a row are left, in any form."""
    text = json.dumps(redacted, ensure_ascii=False).lower()
    shapes = {form(token[start : start + 6]).lower() for form in FORMS.values() for start in range(len(token) - 5)}
    return any(shape in text for shape in shapes)


def test_a_token_in_any_place_of_an_address_is_hidden_in_every_form_of_its_echo() -> None:
    for place, pattern in PLACES.items():
        for token, written in ((PLAIN_TOKEN, PLAIN_TOKEN), (TOKEN, quote(TOKEN, safe=""))):
            parts = secret_parts(pattern.format(written))
            for form, write in FORMS.items():
                echo = write(token)
                for answer in (f"Cannot POST /hooks/{echo}: no", {"path": echo, "list": [f"<b>{echo}</b>"], echo: 1}):
                    redacted = redact_secrets(answer, [], parts)

                    assert not leaks(redacted, token), (place, form, redacted)


@given(
    st.text("abcXYZ0189-_~%.", min_size=12, max_size=40),
    st.sampled_from(sorted(PLACES)),
    st.sampled_from(sorted(FORMS)),
)
def test_generated_tokens_are_hidden(token: str, place: str, form: str) -> None:
    parts = secret_parts(PLACES[place].format(quote(token, safe="")))

    assert not leaks(redact_secrets(f"Cannot POST /{FORMS[form](token)}/x", [], parts), token)


def test_a_part_of_a_token_at_the_end_of_a_text_that_was_cut_off_is_hidden() -> None:
    for length in range(6, len(PLAIN_TOKEN)):
        redacted = redact_secrets(f"Cannot POST /hooks/{PLAIN_TOKEN[:length]}", [], [PLAIN_TOKEN])

        assert redacted == f"Cannot POST /hooks/{MASK}"


def test_a_part_of_an_escaped_token_at_the_end_of_a_text_that_was_cut_off_is_hidden() -> None:
    for form, write in FORMS.items():
        echo = f"Cannot POST /hooks/{write(TOKEN)}"
        for length in range(len(echo)):
            redacted = redact_secrets(echo[:length], [], [TOKEN])

            assert not leaks(redacted, TOKEN), (form, redacted)


def test_parts_that_are_not_ascii_or_have_a_plus_are_hidden() -> None:
    parts = secret_parts(f"https://host.example/hook?a={quote('密钥' * 4)}&b=ab+cd/ef=gh==")
    echoes = [
        "密钥" * 4,
        json.dumps("密钥" * 4),
        quote("密钥" * 4),
        "ab cd/ef=gh==",
        "ab+cd/ef=gh==",
        "ab%20cd%2Fef%3dgh==",
    ]

    for echo in echoes:
        assert MASK in redact_secrets(f"the key {echo} is wrong", [], parts), echo


def test_a_short_token_that_is_a_number_of_json_is_hidden() -> None:
    assert redact_secrets({"code": 1234, "n": 12345}, ["1234"], []) == {"code": "**", "n": 12345}


def test_no_answer_prevents_its_settlement() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    long_numbers = ["&#" + "9" * 5_000 + ";", "&#x" + "f" * 5_000, 10**5_000]
    answers: list[Any] = [*long_numbers, deep, r"\ud800%ed%a0%80&#xd800;%", "\ud800", r"&#;\u\x%"]

    for answer in answers:
        for value in (answer, {"error": answer}):
            redact_secrets(value, [PLAIN_TOKEN], [])


def test_a_short_segment_is_hidden_only_where_it_is_a_segment_or_a_value() -> None:
    parts = secret_parts("https://host.example/hooks/a?v=1")
    expected = {
        "A bad answer of a receiver, v1": "A bad answer of a receiver, v1",
        "Cannot POST /hooks/a": "Cannot POST /*****/*",
        "Cannot POST /hooks/a?v=1 (again)": "Cannot POST /*****/*?v=* (again)",
        "https://host.example/abc?v=12": "https://host.example/abc?v=12",
    }

    assert {text: redact_secrets(text, [], parts) for text in expected} == expected
    assert redact_secrets({"a": 1, "name": "a", "data": [1, "banana"]}, [], parts) == {
        "a": 1,
        "name": "*",
        "data": [1, "banana"],
    }


def test_a_short_token_hides_the_text_in_which_it_stands_as_a_word() -> None:
    expected = {
        "Authorization: Bearer tok12": "Authorization: Bearer *****",
        "unknown token tok12": MASK,
        "atok123": "atok123",
        "tok%31%32": MASK,
    }

    assert {text: redact_secrets(text, ["tok12"], []) for text in expected} == expected


def test_an_email_address_is_hidden_however_short_it_is() -> None:
    assert redact_secrets("550 a@b.cn unknown", ["a@b.cn"], []) == f"550 {MASK} unknown"


def test_a_stored_answer_does_not_grow() -> None:
    parts = secret_parts("https://host.example/hooks/a")
    answers: list[Any] = [
        "/a" * 30_000,
        ["/a"] * 30_000,
        ["a"] * 30_000,
        {f"{n}/a": "a" for n in range(9_000)},
        [1] * 99,
        [1234] * 9_000,
        [12345678] * 9_000,
        [{"tok1": "x tok1"}] * 9_000,
    ]

    for answer in answers:
        assert len(json.dumps(redact_secrets(answer, ["1234", "12345678", "tok1"], parts))) <= len(json.dumps(answer))


def test_the_path_of_a_vendor_is_not_secret() -> None:
    for url in (PLACES["the key of a bot"], PLACES["the key of a flow"]):
        assert secret_parts(url.format(PLAIN_TOKEN)) == (PLAIN_TOKEN,)
    assert "open-apis" in mask_url(PLACES["the key of a bot"].format(PLAIN_TOKEN))


def test_no_place_of_a_token_is_shown_in_a_masked_address() -> None:
    for place, pattern in PLACES.items():
        masked = mask_url(pattern.format(PLAIN_TOKEN))

        assert not leaks(masked, PLAIN_TOKEN), place
        assert re.match(r"https://(\*{8}@)?[a-z.]+", masked), place


def test_an_answer_in_text_that_was_cut_off_within_a_secret_hides_its_beginning() -> None:
    result = SendResult(outcome="success", response_payload=f"received {PLAIN_TOKEN[:9]}", response_excerpt="received")

    assert without_secrets(result, [PLAIN_TOKEN]).response_payload == f"received {MASK}"
