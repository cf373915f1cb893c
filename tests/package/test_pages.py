"""What the pages for developers say is true: the tutorial is followed to the letter, the how-tos name what is there."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from dev.ports import free_port
from tests.support.doc_scripts import blocks, printed, promised, script
from tests.support.host_project import PATIENCE, database, own_database
from tests.support.installation import virtual_environment
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]


def test_the_tutorial_leads_to_a_delivered_notification(tmp_path: Path) -> None:
    port = free_port()
    page = blocks((DOCS / "tutorial.md").read_text().replace("9000", str(port)))
    (tmp_path / "smartmate-notifications").symlink_to(ROOT)
    (folder := tmp_path / "empty").mkdir()
    python = virtual_environment(tmp_path / "env")
    server = database()
    environment = {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PGHOST": server["HOST"], "PGPORT": server["PORT"], "PGUSER": server["USER"], "PGPASSWORD": server["PASSWORD"],
        "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1",
    }  # fmt: skip

    with own_database("mysite"):
        done = subprocess.run(
            ["bash", "-c", script(page, port)],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip

    assert done.returncode == 0, done.stdout
    out = printed(done.stdout)
    for number, lines in promised(page).items():
        rest = out[number]
        for line in lines:
            assert line in rest, f"block {number} did not print {line!r}: {done.stdout}"
            rest = rest.partition(line)[2]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_imports_from_the_app_is_there(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("notifications"):
                module = importlib.import_module(node.module or "")
                assert {name.name for name in node.names} <= set(dir(module))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_and_commands_of_a_page_are_there(page: Path) -> None:
    text, settings = page.read_text(), (DOCS / "settings.md").read_text()

    for line in re.findall(r"manage\.py (\w+)", text):
        known = (ROOT / f"notifications/management/commands/{line}.py").exists()
        assert known or line in {"check", "migrate", "shell", "createsuperuser", "runserver"}, line
    for block in blocks(text):
        for name in re.findall(r'"([A-Z_]+)":', block.text) if "NOTIFICATIONS" in block.text else ():
            assert f"`{name}`" in settings or name in {"ENGINE", "NAME"}, name
