"""The documentation names everything it promises to name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from notifications.conf import ServiceOptions
from notifications.events import FIELDS
from notifications.states import Cause, ErrorCode, Outcome, Status

DOCS = Path(__file__).resolve().parents[2] / "docs"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("option", dataclasses.fields(ServiceOptions), ids=lambda option: option.name)
def test_every_setting_is_in_the_settings_page(option: dataclasses.Field[object]) -> None:
    assert f"`{option.name.upper()}`" in text("settings.md")


@pytest.mark.parametrize("option", dataclasses.fields(ServiceOptions), ids=lambda option: option.name)
def test_every_number_in_the_settings_page_is_the_default(option: dataclasses.Field[object]) -> None:
    if not isinstance(option.default, (int, float)):
        return

    assert f"| `{option.name.upper()}` | {option.default:g} |" in text("settings.md")


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_is_explained_to_operators(code: ErrorCode) -> None:
    assert f"| `{code}` |" in text("operations.md")


@pytest.mark.parametrize("status", Status.values)
def test_every_status_is_in_the_state_picture(status: str) -> None:
    picture = text("design.md").partition("## States")[2].partition("```")[2].partition("```")[0]
    assert status in picture


@pytest.mark.parametrize("word", [*Cause.values, *Outcome.values])
def test_causes_and_outcomes_are_in_the_glossary(word: str) -> None:
    assert f"`{word}`" in text("glossary.md")


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_of_a_request_is_described(field: str) -> None:
    assert f"`{field}`" in text("events.md")
