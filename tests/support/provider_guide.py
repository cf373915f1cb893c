"""The code blocks of docs/providers.md, for the tests that follow the page."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.support.paths import ROOT

PAGE = (ROOT / "docs/providers.md").read_text(encoding="utf-8")


class Guide(NamedTuple):
    """The code blocks of "Adding one", in their order, and the examples of "Options" and of a provider that blocks."""

    provider: str
    settings: str
    conftest: str
    test: str
    options_example: str
    blocking_provider: str


def read_guide() -> Guide:
    """Return the code blocks."""
    provider, settings, conftest, test = _read_code(PAGE.partition("\n## Adding one\n")[2])
    [options_example] = _read_code(PAGE.partition("\n## Options\n")[2].partition("\n## ")[0])
    [blocking] = _read_code(PAGE.partition("\n## A provider that blocks\n")[2].partition("\n## ")[0])
    return Guide(provider, settings, conftest, test, options_example, blocking)


def _read_code(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)
