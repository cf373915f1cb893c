"""All texts have a translation to Simplified Chinese, and the compiled catalogue is up to date."""

from __future__ import annotations

import ast
import gettext
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.db import models
from django.test import Client
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation.template import templatize

from notifications import states
from notifications.models import NotificationRecord, RejectedRequest
from tests.support.factories import LIST, make_attempt, make_record

APP = Path(apps.get_app_config("notifications").path)
FILES = APP / "locale" / "zh_Hans" / "LC_MESSAGES"
REMEDY = "run `django-admin makemessages -l zh_Hans` and `compilemessages` in notifications/, and translate what is new"
CHINESE = re.compile("[\u4e00-\u9fff]")
WORD = re.compile(r"[A-Za-z]")
PLACEHOLDER = re.compile(r"%\(\w+\)[ds]|--\w+")
MARKS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy"}
CONTEXT_MARKS = {"pgettext", "pgettext_lazy"}
CONTEXT_END = "\x04"
"""Between context and text, as in a compiled catalogue."""

Entry = dict[str, str]
"""Keyword (msgid, msgid_plural, msgstr, ...) to text, and "flags"."""


def entries() -> list[Entry]:
    """Return the entries of the .po file; the header is the first."""
    return [entry for block in (FILES / "django.po").read_text("utf-8").split("\n\n") if (entry := _entry(block))]


def _entry(block: str) -> Entry:
    entry: Entry = {}
    keyword = ""
    for line in block.splitlines():
        if line.startswith("#,"):
            entry["flags"] = line
        elif match := re.fullmatch(r'(?:(msg\S+) )?(".*")', line):
            keyword = match[1] or keyword
            entry[keyword] = entry.get(keyword, "") + ast.literal_eval(match[2])
    return entry


def translations() -> dict[str, str]:
    """Return translations by text, after its context if it has one. The singular stands for both forms."""
    return {_key(entry): entry.get("msgstr", entry.get("msgstr[0]", "")) for entry in entries()[1:]}


def _key(entry: Entry) -> str:
    return CONTEXT_END.join([entry["msgctxt"], entry["msgid"]]) if "msgctxt" in entry else entry["msgid"]


def texts_of_code() -> Iterator[str]:
    """Yield every text the code marks for translation, after its context if it has one."""
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in MARKS and isinstance(node.args[0].value, str):
                    yield node.args[0].value
                elif name in CONTEXT_MARKS:
                    yield CONTEXT_END.join(ast.literal_eval(argument) for argument in node.args)


def texts_of_templates() -> Iterator[str]:
    """Yield every text the templates mark for translation, as Django itself finds them."""
    for path in APP.rglob("*.html"):
        for literal in re.findall(r"gettext\(u?(\"[^\"]*\"|'[^']*')", templatize(path.read_text("utf-8"))):
            yield ast.literal_eval(literal)


class TestFile:
    def test_catalogue_has_exactly_the_texts_of_the_app(self) -> None:
        texts = {*texts_of_code(), *texts_of_templates()}

        assert len(texts) > 200, "the search for texts found too few"
        assert texts - set(translations()) == set(), REMEDY
        assert set(translations()) - texts == set(), REMEDY

    def test_each_text_is_translated_and_not_fuzzy(self) -> None:
        with_words = {
            text: translated for text, translated in translations().items() if WORD.search(PLACEHOLDER.sub("", text))
        }
        assert [text for text, translated in with_words.items() if not CHINESE.search(translated)] == []
        assert [entry["msgid"] for entry in entries() if "fuzzy" in entry.get("flags", "")] == []

    def test_placeholders_and_option_names_are_kept(self) -> None:
        for text, translated in translations().items():
            assert sorted(PLACEHOLDER.findall(translated)) == sorted(PLACEHOLDER.findall(text)), text

    def test_compiled_catalogue_is_up_to_date(self) -> None:
        with (FILES / "django.mo").open("rb") as file:
            compiled = gettext.GNUTranslations(file)

        for entry in entries()[1:]:
            if "msgid_plural" in entry:
                assert compiled.ngettext(entry["msgid"], entry["msgid_plural"], 2) == entry["msgstr[0]"], REMEDY
            else:
                assert compiled.gettext(_key(entry)) == entry["msgstr"], REMEDY
        assert len(compiled._catalog) == len(entries())  # type: ignore[attr-defined]


SEEN = [model for model in apps.get_app_config("notifications").get_models() if model._meta.default_permissions]
"""Models with a view permission."""


class TestWords:
    def test_names_of_models_and_fields_are_translated(self) -> None:
        for model in SEEN:
            shown = [field for field in model._meta.fields if field.editable and not field.primary_key]
            with translation.override("zh-hans"):
                names = [
                    model._meta.verbose_name,
                    model._meta.verbose_name_plural,
                    *(field.verbose_name for field in shown),
                ]
                names += [label for _code, label in model._meta.permissions]
                helps = [field.help_text for field in shown if field.help_text]
                assert [str(name) for name in (*names, *helps) if not CHINESE.search(str(name))] == []

    def test_labels_of_choices_are_translated(self) -> None:
        cases: list[type[models.TextChoices]] = [
            states.Status,
            states.Outcome,
            states.Cause,
            states.TestStatus,
            states.AuthType,
        ]
        for choices in cases:
            with translation.override("zh-hans"):
                assert [choice for choice in choices if not CHINESE.search(str(choice.label))] == []

    def test_sentences_about_states_are_translated(self) -> None:
        from notifications.admin.record_operations import OPERATIONS
        from notifications.content.error_messages import ERROR_MESSAGES, ERROR_REMEDIES, USER_ERROR_MESSAGES

        sentences: list[Promise] = [
            *(*ERROR_MESSAGES.values(), *ERROR_REMEDIES.values(), *USER_ERROR_MESSAGES.values())
        ]
        for operation in OPERATIONS.values():
            sentences += [operation.title, operation.button, *operation.unchanged_reasons.values()]

        with translation.override("zh-hans"):
            assert [str(sentence) for sentence in sentences if not CHINESE.search(str(sentence))] == []


@pytest.mark.django_db
class TestPages:
    def chinese(self, client: Client, url: str, **data: object) -> str:
        headers = {"accept-language": "zh-CN,zh;q=0.9"}
        response = client.post(url, data, headers=headers) if data else client.get(url, headers=headers)
        assert response.status_code == 200
        return response.content.decode()

    def test_list_is_chinese_for_a_chinese_browser(self, admin_client: Client) -> None:
        make_record()

        html = self.chinese(admin_client, LIST)

        assert "投递失败，需要处理" in html
        assert "dead, action needed" not in html

    def test_record_page_is_chinese(self, admin_client: Client) -> None:
        record = make_record()
        make_attempt(record)

        html = self.chinese(admin_client, f"{LIST}{record.pk}/change/")

        for text in ("未送达，不会再自动尝试", "请让用户修复机器人或流程", "永久失败", "投递尝试", "重发…"):
            assert text in html
        for text in ("Not delivered", "permanent failure", "Delivery attempts", "Replay"):
            assert text not in html

    def test_confirmation_is_chinese(self, admin_client: Client) -> None:
        record = make_record()

        asked = self.chinese(admin_client, LIST, action="cancel", _selected_action=record.pk)

        assert "不会发送" in asked
        assert NotificationRecord.objects.get().status == "dead"

    def test_reasons_of_a_rejection_are_chinese(self, admin_client: Client) -> None:
        errors = [{"field": "user_id", "reason": "must be a whole number"}, {"field": "x", "reason": ""}]
        rejected = RejectedRequest.objects.create(source="test", payload="{}", errors=errors)

        html = self.chinese(admin_client, f"/admin/notifications/rejectedrequest/{rejected.pk}/change/")

        assert "必须是整数" in html
        assert "Project-Id-Version" not in html

    def test_english_is_the_default(self, admin_client: Client) -> None:
        make_record()

        assert "dead, action needed" in admin_client.get(LIST).content.decode()
