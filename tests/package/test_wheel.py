"""What the wheel holds and what it asks for."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = {canonicalize_name(one.name): one for one in map(Requirement, PROJECT["dependencies"])}
NOT_NEEDED = {"pytest", "opentelemetry"}
"""pytest: only notifications.testing.plugin imports it. opentelemetry: a namespace that several packages share."""


def pins() -> dict[str, str]:
    """Return the versions this project runs on."""
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "constraints.txt").read_text()
    return {canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def test_it_holds_the_app_whole_and_nothing_else(wheel: Path) -> None:
    app = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "notifications").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }

    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert held == app
    assert {"notifications/py.typed", "notifications/locale/zh_Hans/LC_MESSAGES/django.mo"} <= held


def test_it_says_what_it_is(wheel: Path) -> None:
    assert wheel.name == f"smartmate_notifications-{PROJECT['version']}-py3-none-any.whl"


def test_every_import_is_asked_for() -> None:
    imported = set()
    for path in (ROOT / "notifications").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {"notifications"} - NOT_NEEDED
    sources = importlib.metadata.packages_distributions()

    needed = {canonicalize_name(sources[name][0]) for name in foreign}

    # Django and Celery themselves import the driver.
    assert needed | {"psycopg2-binary", "opentelemetry-api"} == set(DECLARED)


def test_what_it_asks_for_allows_what_we_run_and_test() -> None:
    assert {name: DECLARED[name].specifier.contains(pins()[name]) for name in DECLARED} == dict.fromkeys(DECLARED, True)
