"""The text that a user reads: what is trimmed, cut, refused and added."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, strategies as st

from notifications.conf import service_options
from notifications.content.links import contains_external_link, contains_path, site_link
from notifications.content.rendering import build_message_text, find_replaced_texts, normalize_message_template
from notifications.content.sanitize import clean_json, clean_text
from notifications.content.text import (
    drop_half_character,
    escape_invisible,
    is_visible,
    trim,
    truncate_text,
    whole_characters,
)
from notifications.ingest.payload import parse_payload
from notifications.ingest.validation import InvalidNotification
from notifications.providers.answer_redaction import Redactor
from notifications.security.address_secrets import secret_parts
from notifications.security.log_redaction import redact_text
from tests.support.payloads import payload

LINKS = [
    # plain
    *(
        "http://evil.example",
        "HTTPS://EVIL.EXAMPLE",
        "见 https://evil.example。",
        "ftp://x",
        "lark://client",
        "file:///etc",
    ),
    *("://", "https:// evil.example", "1http://evil", "9.http://evil", "<a href='//evil.example'>", "[看](http://x)"),
    *("www.evil.example", "WWW.EVIL.EXAMPLE", "看www.evil.example", "(www.evil.example)"),
    # without a scheme
    *("//evil.example", "///evil.example", "看//evil.example"),
    # full-width and look-alike characters
    *(
        "ｈｔｔｐ：／／ｅｖｉｌ",
        "http：//evil.example",
        "http:／／evil.example",
        "ｗｗｗ.evil.example",
        "ＷＷＷ．evil.example",
    ),
    *("www。evil.example", "ｗｗｗ｡evil｡example", "http:⁄⁄evil.example", "http:∕∕evil.example", "evil．example／x"),
    # characters nobody sees
    *("http\u200b://evil.example", "https:\u200b//evil.example", "https:/\u200b/evil.example", "ht\u200dtp://evil"),
    *(
        "w\u2060ww.evil.example",
        "w\u00adww.evil.example",
        "http:\u202e//evil",
        "http:\ufeff//evil",
        "http:\ufe0f//evil",
    ),
    # backslashes
    *(
        "http:\\\\evil.example",
        "\\\\evil.example\\x",
        "/\\evil.example",
        "https:/\\evil.example",
    ),
    # escapes
    *("http%3A%2F%2Fevil.example", "http%253A%252F%252Fevil.example", "http:%2f%2fevil.example"),
    *("http&#" + "0" * 5000 + "58;//evil", "&#" + "9" * 5000 + ";http://evil", "http&#0000058//evil"),
    *("http&#58;//evil", "http&#x3a;&#x2f;&#x2f;evil", "http&colon;&sol;&sol;evil", "%77ww.evil.example"),
    # taken apart
    *("hxxp://evil.example", "hxxp:[//]evil.example", "hxxp[:]//evil", "https[://]evil", "www[.]evil.example"),
    *("evil[.]example/x", "evil(.)example/x", "evil{.}example/x"),
    # names and addresses with a path
    *(
        "evil.example/x",
        "Node.js/evil.example/x",
        "a.js/b.ts/evil.example/x",
        "evil.com/x",
        "evil.xn--fiqs8s/x",
        "看evil.example/x",
        "sub.evil.example/x",
        "xn--fiqs8s.example/x",
        "bit.ly/abc",
        "a@evil.example/x",
    ),
    *(
        "evil.example:8080/x",
        "http://evil.example:8080",
        "192.168.1.1/x",
        "10.0.0.1/",
        "10.0.0.1:8080/x",
        "http://[::1]/",
    ),
    *("http://2130706433", "http://0x7f000001"),
    # schemes without slashes
    *("data:text/html,x", "DATA:text/html;base64,AA", "javascript:alert(1)", "JavaScript:alert(1)", "vbscript:x"),
    *("mailto:a@evil.example", "MAILTO:?to=a", "tel:110", "电话 tel:110", "sms:110", "blob:x", "java\u200bscript:x"),
]
NO_LINKS = [
    *(
        "",
        " ",
        "写周报改到周四上午",
        "完成了 9/10",
        "1/2",
        "24/7",
        "周一/周二",
        "16:00/17:00",
        "16:00//17:00",
        "2026/05/01",
    ),
    *("把「学习 Node.js/Vue.js 第三章」改到周四", "main.go/util.ts 和 a.b.json/x", "node.js/next.js/nuxt.ts/x"),
    *("v1.2/3", "v1.2.3/4", "3.5/4.0", "No.1/No.2", "file.py", "notifications/file.py", "src/app.py/x", "README.md"),
    *(
        "and/or",
        "TCP/IP",
        "a.b/c",
        "e.g./i.e.",
        "a//b.c",
        "10//20",
        "// 注释",
        "/",
        "//",
        "/assistant/c-1",
        "/a/b.html?c=d",
    ),
    *(
        "example.com",
        "ftp.example.com",
        "a@example.com",
        "1.2.3.4",
        "比例 3://4",
        "1.2://3",
        "awww. nice",
        "wwwexample.com",
    ),
    *(
        "www",
        "w w w .",
        "https:",
        "https: 见下",
        "HTTP:500 错误",
        "a:/b",
        "a: //b",
        ":/",
        "data: 5",
        "mailto: 邮件",
        "tel: 110",
    ),
    *(
        "&#" + "9" * 5000,
        "100%",
        "50%2B",
        "a &amp; b",
        "a\\b",
        "C:\\x",
        "[1](2)",
        "（一）{二}",
        "🎉👨\u200d👩\u200d👧",
        "a;b",
        "（：）",
        "10.5.1/2",
    ),
]


LINEAR = 9
"""Four times the length takes about four times as long; a quadratic rule would take sixteen times as long."""


def growth(rule: Callable[[str], object], piece: str) -> float:
    """Return how many times longer a rule takes for a text of four times the length, in processor time."""

    def measure(length: int) -> float:
        text = (piece * length)[:length]
        times = []
        for _ in range(3):
            began = time.process_time()
            for _ in range(repeats):
                rule(text)
            times.append(time.process_time() - began)
        return min(times)

    repeats = 1
    while measure(4_000) < 0.002:  # so that the clock's resolution does not matter
        repeats *= 2
    return measure(16_000) / measure(4_000)


class TestContainsExternalLink:
    def test_every_spelling_of_a_link_is_found(self) -> None:
        assert [text for text in LINKS if not contains_external_link(text)] == []

    def test_a_link_within_a_sentence_is_found(self) -> None:
        sentences = [f"会议改到 9/10 周一/周二 {text} 请确认" for text in LINKS]

        assert [text for text in sentences if not contains_external_link(text)] == []

    def test_plain_text_has_no_link(self) -> None:
        assert [text for text in NO_LINKS if contains_external_link(text)] == []

    def test_the_time_grows_in_proportion_to_the_length_of_the_text(self) -> None:
        pieces = (
            "a",
            "a.",
            "//a",
            "&#",
            "%25",
            "1.",
            "a-",
            "\u33c2",
            "www",
            "data:",
            "3://",
            "a.js/",
            "://",
            "\\",
            "[",
        )
        marks = "\u0315\u0300\u05ae\u0316"  # combining characters of different classes, which normalisation sorts
        for piece in (*pieces, marks, "x.中", "amp;&", "&#0", "&#9"):
            assert growth(lambda text: contains_external_link(text), piece) < LINEAR, piece

    @given(st.text(max_size=50), st.text(max_size=50))
    def test_no_text_around_a_link_hides_it(self, before: str, after: str) -> None:
        assert contains_external_link(f"{before} https://evil.example {after}")


WITH_PATH = (
    *(
        "/c-1",
        "见 /c-1",
        "见/c-1",
        "/c-1 已更新",
        "见 /c-1。",
        "见 /c-1.",
        "（/c-1）",
        "(/c-1)",
        "/c-1, 然后",
        "/c-1查看",
    ),
    *("/c-12 和 /c-1", "'/c-1'", "/c-1\n", "/c-1!", "/c-1;", "/c-1:"),
)
WITH_A_LONGER_PATH = (
    *("", "/c-12", "/c-1/x", "/x/c-1", "x/c-1", "./c-1", "//c-1", "/c-1?a", "/c-1#a", "/c-1=", "/c-1&x", "/c-1-2"),
    *("/c-1_", "/c-1.html", "/c-1,2", "/c-1%20", "/C-1", "/c-", "?/c-1", "/c-1+x", "/c-1:8", "/c-1@x", "-/c-1"),
)


class TestContainsPath:
    def test_exactly_this_path_is_found(self) -> None:
        assert [text for text in WITH_PATH if not contains_path(text, "/c-1")] == []

    def test_a_longer_path_is_another_one(self) -> None:
        assert [text for text in WITH_A_LONGER_PATH if contains_path(text, "/c-1")] == []

    def test_the_root_is_not_in_a_fraction(self) -> None:
        assert not contains_path("9/10 完成", "/")

    def test_a_longer_chinese_word_is_another_path(self) -> None:
        assert contains_path("见 /日程 。", "/日程")
        assert not contains_path("见 /日程表", "/日程")


class TestTrimAndTruncate:
    def test_trims_unicode_white_space_and_nothing_else(self) -> None:
        assert trim("\t\n \x85\xa0\u1680\u2003\u2028\u202f\u3000 a b \u3000") == "a b"
        assert trim("\x1ca\u200b\ufeff") == "\x1ca\u200b\ufeff"

    @given(st.text(), st.integers(-5, 50))
    def test_a_cut_text_is_the_beginning_and_no_longer_than_the_limit(self, text: str, limit: int) -> None:
        cut = truncate_text(text, limit)

        assert len(cut) <= max(limit, 0)
        assert trim(text).startswith(cut)

    def test_counts_code_points(self) -> None:
        assert truncate_text("😀😀😀", 2) == "😀😀"


class TestTemplate:
    def test_a_summary_is_trimmed_and_cut(self) -> None:
        assert normalize_message_template(" 写周报改到周四 ", " 备用 ", 3) == ("写周报", "备用", False)

    def test_a_cut_text_ends_without_a_blank(self) -> None:
        assert normalize_message_template("周报 改到周四", "备用", 3).summary_text == "周报"

    def test_the_fallback_replaces_a_blank_summary_or_one_with_a_link(self) -> None:
        for summary in ("", " \u3000", "see https://evil.example"):
            assert normalize_message_template(summary, "备用", 180) == ("", "备用", True), summary

    def test_the_setting_replaces_a_fallback_that_cannot_be_sent(self, change: Callable[..., None]) -> None:
        change(FALLBACK_TEXT="设置")
        for fallback in ("", "\u3000", "see https://evil.example", "ｗｗｗ.evil.example"):
            assert normalize_message_template("", fallback, 180) == ("", "设置", True), fallback

    def test_a_link_is_found_before_the_cut(self) -> None:
        assert normalize_message_template("字" * 200 + "https://evil.example", "备用", 180).fallback_used

    @given(st.text(max_size=300), st.text(max_size=300), st.integers(1, 200))
    def test_no_stored_text_that_is_sent_has_a_link(self, summary: str, fallback: str, limit: int) -> None:
        stored = normalize_message_template(summary, fallback, limit)

        assert len(stored.summary_text) <= limit
        assert not contains_external_link(stored.fallback_text if stored.fallback_used else stored.summary_text)


class TestBuild:
    def build(self, summary: str, fallback: str = "备用", *, used: bool = False, url: str = "/c-1") -> str:
        text, _ = build_message_text(summary=summary, fallback=fallback, fallback_used=used, target_url=url)
        return text

    def test_a_cut_summary_ends_with_no_half_of_a_character(self) -> None:
        start = "字" * 177
        expected = {
            f"{start}字🇨🇳"[:179]: f"{start}字",
            f"{start}🇨🇳🇨": f"{start}🇨🇳",
            f"{start}字👨\u200d": f"{start}字👨",
            f"{start}字🇨🇳": f"{start}字🇨🇳",
            f"{start}字字字": f"{start}字字字",
        }
        texts = {text: self.build(text.rjust(180, "字")).partition("\n")[0] for text in expected}

        assert texts == {text: shown.rjust(180 - len(text) + len(shown), "字") for text, shown in expected.items()}

    def test_a_short_summary_is_shown_as_it_was_given(self) -> None:
        assert self.build("🇨").startswith("🇨\n")

    def test_the_path_is_added_on_its_own_line(self) -> None:
        assert self.build("改到周四") == "改到周四\n/c-1"

    def test_a_path_in_the_text_is_not_added_again(self) -> None:
        assert self.build("点 /c-1 查看", url=" /c-1 ") == "点 /c-1 查看"

    def test_the_path_is_added_after_a_longer_one(self) -> None:
        assert self.build("点 /c-12 查看") == "点 /c-12 查看\n/c-1"

    def test_without_a_path_no_line_is_added(self) -> None:
        assert self.build("改到周四", url=" ") == "改到周四"

    def test_the_fallback_replaces_an_invisible_summary(self) -> None:
        for summary in ("", " ", "\u200b", "\u2060\ufeff", "\u3164", "\x00\x1f"):
            assert not is_visible(summary)
            assert self.build(summary) == "备用\n/c-1", summary

    def test_the_setting_replaces_a_stored_fallback_with_a_link(self) -> None:
        assert self.build("", "see https://evil.example") == f"{service_options().fallback_text}\n/c-1"

    def test_fallback_used_is_what_the_record_says(self) -> None:
        for used in (True, False):
            built = build_message_text(summary="", fallback="备用", fallback_used=used, target_url="/c-1")
            assert built == ("备用\n/c-1", used)


def test_the_time_of_each_text_rule_grows_in_proportion_to_the_length() -> None:
    def replace_and_build(text: str) -> None:
        stored = normalize_message_template(text, text, 180)
        find_replaced_texts(text, text, stored)
        build_message_text(summary="", fallback=text, fallback_used=True, target_url="/")

    def parse(field: str) -> Callable[[str], object]:
        def refuse(text: str) -> None:
            with pytest.raises(InvalidNotification):
                parse_payload(payload(**{field: text}, user_id=0))

        return refuse

    token = "3f2a8b1c-7e5d"
    rules: dict[Callable[[str], object], tuple[str, ...]] = {
        trim: (" ", " a", "\u3000"),
        is_visible: ("\u200b", "\u3164"),
        lambda text: whole_characters(text, len(text) - 1): ("🇨", "\u0301", "\u200d"),
        drop_half_character: ("🇨", "\u200d", "🇨\u200d"),
        escape_invisible: ("\u202e", "\ud800"),
        replace_and_build: ("/", "a/", " ", "\u200b", "🇨"),
        partial(contains_path, path="/"): ("/", "/ "),
        partial(contains_path, path="/" + "a" * 1000): ("/" + "a" * 999 + "b", "/aa"),
        partial(site_link, "https://app.example.com"): ("%", "%2", "周", " "),
        partial(clean_text, limit=191): ("\x00", " ", "\ud800"),
        clean_json: ("\x00", '"', "\ud800", "["),
        parse("requested_at"): ("t", "0", ".000000", "2016-12-31T23:59:60.", " "),
        parse("target_url"): ("/", "\\", ":/", " "),
        parse("summary_text"): ("\x00", "a ", "\ud800"),
        parse("unknown"): ("a",),
        redact_text: ("hook/", "whsec_", "bearer ", "webhook_url=", "a://b:c@", "a://"),
        Redactor([token, "tok12"], ["a"]).redact: (
            "%25",
            "&#9",
            "&#",
            "\\\\",
            "\\u",
            "/a",
            "=a&",
            token[:9],
            "tok1",
            "İ",
        ),
        lambda text: Redactor([], secret_parts(f"https://x.example/{text[:2000]}")).redact(text): (
            "%25",
            "abcdefgh",
            "a+",
        ),
    }
    for rule, pieces in rules.items():
        for piece in pieces:
            assert growth(rule, piece) < LINEAR, (rule, piece)


def test_site_link_is_percent_encoded_once() -> None:
    links = {
        "/meetings/9": "https://app.example.com/meetings/9",
        "/a b/周报?x=1 2": "https://app.example.com/a%20b/%E5%91%A8%E6%8A%A5?x=1%202",
        "/a%20b?x=%E5%91%A8#y": "https://app.example.com/a%20b?x=%E5%91%A8#y",
        '/"<>': "https://app.example.com/%22%3C%3E",
    }

    assert {path: site_link("https://app.example.com/", path) for path in links} == links
