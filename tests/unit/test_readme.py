"""The two READMEs say the same, and lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.utils import translation

from notifications.states import Status

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("README.md", "README.zh-Hans.md")
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in NAMES)


def code(text: str) -> list[str]:
    """Return the lines of code blocks, without comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line.partition(" # ")[0].rstrip() for block in blocks for line in block.splitlines()]


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text: str) -> list[str]:
    return sorted(set(re.findall(r"\]\(([^)]+)\)", text)) - set(NAMES))


def test_both_have_the_same_sections() -> None:
    levels = [re.findall(r"^(#+) ", prose(text), re.MULTILINE) for text in (ENGLISH, CHINESE)]

    assert levels[0] == levels[1]


def test_both_have_the_same_commands() -> None:
    assert code(ENGLISH) == code(CHINESE)


def test_both_name_the_same_settings_with_the_same_defaults() -> None:
    rows = [re.findall(r"^\| (`.+?) \| (.*?) ?\| .*\|$", text, re.MULTILINE) for text in (ENGLISH, CHINESE)]

    assert rows[0] == rows[1]
    assert len(rows[0]) >= 5


def test_both_name_the_same_words_of_code() -> None:
    names = [sorted(set(re.findall(r"`([^`\n]+)`", prose(text)))) for text in (ENGLISH, CHINESE)]

    assert names[0] == names[1]


def test_both_lead_to_the_same_pages() -> None:
    pages = [[link for link in links(text) if not link.endswith(".png")] for text in (ENGLISH, CHINESE)]

    assert pages[0] == pages[1]


def test_each_leads_to_the_other_at_its_top() -> None:
    assert f"]({NAMES[1]})" in "".join(ENGLISH.splitlines()[:4])
    assert f"]({NAMES[0]})" in "".join(CHINESE.splitlines()[:4])


@pytest.mark.parametrize("page", [ROOT / NAMES[0], ROOT / NAMES[1], *sorted((ROOT / "docs").rglob("*.md"))], ids=str)
def test_every_link_of_a_page_leads_to_something(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    for link in links(text):
        path, _, anchor = link.partition("#")
        if "://" in path or path.startswith("/"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {
                re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
            }


@pytest.mark.parametrize("status", Status)
def test_the_glossary_calls_a_status_what_the_admin_calls_it_in_chinese(status: Status) -> None:
    with translation.override("zh-hans"):
        assert f"| `{status}` | {status.label} |" in (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
