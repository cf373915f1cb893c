"""The documentation is complete and names only what exists."""

from __future__ import annotations

import dataclasses
import importlib
import re
import tomllib

from notifications.conf import ServiceOptions
from notifications.ingest.payload import FIELDS
from notifications.monitoring.prometheus import NAMES
from notifications.monitoring.readiness import PARTS
from notifications.states import Cause, ErrorCode, Outcome, Status
from notifications.web_api import api
from notifications.web_api.schemas import ChannelIn, ChannelOut, NotificationOut, PageOut, TestOut
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_the_settings_page_names_every_setting_with_its_default() -> None:
    page = text("settings.md")

    for option in dataclasses.fields(ServiceOptions):
        name = option.name.upper()
        assert f"`{name}`" in page, name
        if isinstance(option.default, (int, float)):
            assert f"| `{name}` | {option.default:g} |" in page, name


def test_the_operations_page_explains_every_error_code() -> None:
    page = text("operations.md")

    for code in ErrorCode:
        assert f"| `{code}` |" in page, code


def test_the_state_diagram_has_every_status() -> None:
    diagram = text("design.md").partition("## States")[2].partition("```")[2].partition("```")[0]

    for status in Status.values:
        assert status in diagram, status


def packages_of_the_map() -> list[str]:
    table = text("design.md").partition("## Packages")[2].partition("## ")[0]
    first_column = re.findall(r"^\| (`[a-z_`, ]+) \|", table, re.MULTILINE)
    return [name for cell in first_column for name in re.findall(r"`(\w+)`", cell)]


def test_the_map_of_the_design_has_every_package_and_only_those_that_exist() -> None:
    listed = packages_of_the_map()
    app = DOCS.parent / "notifications"
    packages = {path.parent.name for path in app.glob("*/__init__.py")} - {"migrations"}
    modules = {path.stem for path in app.glob("*.py")} - {"__init__"}
    forwards = {path.stem for path in app.glob("*.py") if "_moved import forward" in path.read_text(encoding="utf-8")}
    assert set(listed) == packages | modules - forwards


def test_the_map_of_the_design_has_the_order_of_the_import_contract() -> None:
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    lines = project["tool"]["importlinter"]["contracts"][0]["layers"]
    layers = [{name.strip().removeprefix("notifications.") for name in line.split("|")} for line in lines]

    position = {name: number for number, layer in enumerate(layers) for name in layer}
    listed = packages_of_the_map()
    assert [position[name] for name in listed] == sorted(position[name] for name in listed)


def test_functions_of_the_path_of_a_request_exist() -> None:
    table = text("design.md").partition("## The path of a request")[2].partition("## ")[0]
    names = [
        name
        for cell in re.findall(r"^\| \d+ \| (.+?) \|", table, re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", cell)
    ]

    assert len(names) >= 12
    for name in names:
        resolve(f"notifications.{name}")


def resolve(path: str) -> object:
    """Return the module, class or function that a dotted path names."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            found = getattr(found, name)
        return found
    raise AssertionError(path)


def test_the_glossary_has_every_cause_and_outcome() -> None:
    page = text("glossary.md")

    for word in [*Cause.values, *Outcome.values]:
        assert f"`{word}`" in page, word


def test_the_events_page_describes_every_field_of_a_request() -> None:
    page = text("events.md")

    for field in FIELDS:
        assert f"`{field}`" in page, field


def test_the_api_page_has_the_operations_of_the_http_api_and_no_other() -> None:
    paths = api.get_openapi_schema(path_prefix="api/")["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}

    assert set(re.findall(r"^### `(.+)`$", text("api.md"), re.MULTILINE)) == served


def test_the_api_page_has_the_error_statuses_of_the_http_api_and_no_other() -> None:
    paths = api.get_openapi_schema(path_prefix="api/")["paths"]
    statuses = {int(code) for path in paths.values() for method in path.values() for code in method["responses"]}

    listed = text("api.md").partition("## Refusals")[2]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", listed, re.MULTILINE)} == {
        status for status in statuses if status >= 400
    }


def test_the_api_page_describes_every_field_of_the_http_api() -> None:
    page = text("api.md")

    for schema in (ChannelIn, ChannelOut, TestOut, NotificationOut, PageOut):
        for name in schema.model_fields:
            assert f"`{name}`" in page or f'"{name}":' in page, (schema, name)


FAULTS = re.findall(r"^\| (\d+) \|.*?\| `([^`]+)` \|", text("reliability.md"), re.MULTILINE)


def test_the_reliability_page_has_a_row_for_every_fault() -> None:
    assert [int(number) for number, _test in FAULTS] == list(range(1, 40))


def test_every_fault_names_a_test_that_exists() -> None:
    for number, test in FAULTS:
        path, _, name = test.partition("::")
        if path.startswith("make "):
            assert f"\n{path.removeprefix('make ')}:" in (DOCS.parent / "Makefile").read_text(), test
            continue
        assert f"def {name}" in (DOCS.parent / path).read_text(), test
        assert not name or name.startswith(f"test_fault_{int(number):02d}_"), test


METRIC = re.compile(r"\bnotifications_(?!doctor)[a-z_]+")


def metrics_of(page: str) -> set[str]:
    """Return the metrics that a page names, histograms and their parts as one."""
    return {re.sub("_(bucket|sum|count)$", "", name) for name in METRIC.findall(text(page))}


def test_the_alert_rules_use_only_metrics_that_exist() -> None:
    assert metrics_of("observability/alerts.yml") <= set(NAMES)


def test_messages_that_are_not_sent_on_purpose_are_no_failures_in_rules_and_dashboard() -> None:
    failing = [line for page in ("alerts.yml", "dashboard.json") for line in text(f"observability/{page}").splitlines()]
    shares = [line for line in failing if "attempts_total{" in line]
    assert shares
    assert [line for line in shares if "skipped" not in line] == []


def test_a_failed_scrape_has_an_alert_rule_of_its_own() -> None:
    rules = dict(re.findall(r"- alert: (\w+)\n +expr: ([^\n]+)", text("observability/alerts.yml")))

    assert rules["NotificationsNoMetrics"] == "absent(notifications_workers)"
    assert "absent" not in rules["NotificationsNotSwept"]


def test_the_observability_page_and_the_dashboard_have_every_metric_and_no_other() -> None:
    assert metrics_of("observability.md") == set(NAMES) == metrics_of("observability/dashboard.json")


def test_the_observability_page_describes_every_part_of_readiness() -> None:
    for part in PARTS:
        assert f"| `{part}` |" in text("observability.md")


def test_the_list_of_findings_has_every_script_and_no_other() -> None:
    folder = DOCS.parent / "findings"

    listed = re.findall(r"^\| `([\w-]+)` \|", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in folder.glob("*.sh"))


def test_every_finding_states_question_guess_answer_and_versions() -> None:
    for script in (DOCS.parent / "findings").glob("*.sh"):
        lines = script.read_text(encoding="utf-8").splitlines()
        header = lines[: lines.index("set -euo pipefail")]
        marks = ("#!/usr/bin/env bash", "# Question: ", "# Common guess: ", "# True: ", "# Seen with ")
        found = [mark for mark in marks if any(line.startswith(mark) for line in header)]
        assert found == list(marks), script.name


def test_the_site_lists_every_page() -> None:
    listed = re.findall(r"^([a-z][\w/-]+)$", text("index.md"), re.MULTILINE)

    pages = {str(page.relative_to(DOCS).with_suffix("")) for page in DOCS.rglob("*.md")} - {"index"}
    assert set(listed) == pages
