"""The documentation names everything it promises to name."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from notifications.conf import ServiceOptions
from notifications.ingest.payload import FIELDS
from notifications.monitoring.prometheus import NAMES
from notifications.monitoring.readiness import PARTS
from notifications.states import Cause, ErrorCode, Outcome, Status
from notifications.web_api import api
from notifications.web_api.schemas import ChannelIn, ChannelOut, NotificationOut, PageOut, TestOut

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


def test_every_operation_of_the_http_api_is_described_and_no_other() -> None:
    paths = api.get_openapi_schema(path_prefix="api/")["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}

    assert set(re.findall(r"^### `(.+)`$", text("api.md"), re.MULTILINE)) == served


def test_every_refusal_of_the_http_api_is_described_and_no_other() -> None:
    paths = api.get_openapi_schema(path_prefix="api/")["paths"]
    statuses = {int(code) for path in paths.values() for one in path.values() for code in one["responses"]}

    listed = text("api.md").partition("## Refusals")[2]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", listed, re.MULTILINE)} == {
        status for status in statuses if status >= 400
    }


@pytest.mark.parametrize("schema", [ChannelIn, ChannelOut, TestOut, NotificationOut, PageOut])
def test_every_field_of_the_http_api_is_described(schema: type[BaseModel]) -> None:
    for name in schema.model_fields:
        assert f"`{name}`" in text("api.md") or f'"{name}":' in text("api.md"), name


FAULTS = re.findall(r"^\| (\d+) \|.*?\| `([^`]+)` \|", text("reliability.md"), re.MULTILINE)


def test_every_fault_of_the_plan_has_a_row() -> None:
    assert [int(number) for number, _test in FAULTS] == list(range(1, 38))


@pytest.mark.parametrize(("number", "test"), FAULTS)
def test_every_fault_names_a_test_that_is_there(number: str, test: str) -> None:
    path, _, name = test.partition("::")
    if path.startswith("make "):
        assert f"\n{path.removeprefix('make ')}:" in (DOCS.parent / "Makefile").read_text()
        return

    assert f"def {name}" in (DOCS.parent / path).read_text()
    assert not name or name.startswith(f"test_fault_{int(number):02d}_")


METRIC = re.compile(r"\bnotifications_(?!doctor)[a-z_]+")


def metrics_of(page: str) -> set[str]:
    """Return the metrics that a page names, histograms and their parts as one."""
    return {re.sub("_(bucket|sum|count)$", "", name) for name in METRIC.findall(text(page))}


@pytest.mark.parametrize("page", ["observability/dashboard.json", "observability/alerts.yml"])
def test_dashboard_and_rules_name_only_metrics_that_exist(page: str) -> None:
    assert metrics_of(page) <= set(NAMES)


def test_every_metric_is_described_and_drawn() -> None:
    assert metrics_of("observability.md") == set(NAMES) == metrics_of("observability/dashboard.json")


def test_every_part_of_readiness_is_described() -> None:
    for part in PARTS:
        assert f"| `{part}` |" in text("observability.md")
