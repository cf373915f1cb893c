"""The two READMEs have the same content, and links of all pages have targets."""

from __future__ import annotations

import re
from pathlib import Path

from django.utils import translation

from notifications.states import Status
from tests.support.paths import ROOT

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


def test_both_readmes_have_the_same_sections() -> None:
    levels = [re.findall(r"^(#+) ", prose(text), re.MULTILINE) for text in (ENGLISH, CHINESE)]

    assert levels[0] == levels[1]


def test_both_readmes_have_the_same_commands() -> None:
    assert code(ENGLISH) == code(CHINESE)


def test_both_readmes_have_the_same_settings_with_the_same_defaults() -> None:
    rows = [re.findall(r"^\| (`.+?) \| (.*?) ?\| .*\|$", text, re.MULTILINE) for text in (ENGLISH, CHINESE)]

    assert rows[0] == rows[1]
    assert len(rows[0]) >= 5


def test_both_readmes_use_the_same_words_of_code() -> None:
    names = [sorted(set(re.findall(r"`([^`\n]+)`", prose(text)))) for text in (ENGLISH, CHINESE)]

    assert names[0] == names[1]


def test_both_readmes_link_to_the_same_pages() -> None:
    pages = [[link for link in links(text) if not link.endswith(".png")] for text in (ENGLISH, CHINESE)]

    assert pages[0] == pages[1]


def test_each_readme_links_to_the_other_at_its_top() -> None:
    assert f"]({NAMES[1]})" in "".join(ENGLISH.splitlines()[:4])
    assert f"]({NAMES[0]})" in "".join(CHINESE.splitlines()[:4])


def test_every_link_of_the_documentation_has_a_target() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "findings").glob("*.md")]

    assert len(pages) > 20
    for page in pages:
        for link in links(page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            if "://" in path or path.startswith("/"):
                continue
            target = page.parent / path if path else page
            assert target.exists(), (page, link)
            assert not anchor or anchor in anchors(target), (page, link)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_glossary_has_the_chinese_label_of_every_status() -> None:
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")

    with translation.override("zh-hans"):
        for status in Status:
            assert f"| `{status}` | {status.label} |" in glossary, status
