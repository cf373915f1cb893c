"""A pytest plugin for the marker ``processes``: which tests have it, and that no other test starts a program."""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

from tests.support.paths import ROOT

FOLDERS_WITH_PROCESSES = tuple(ROOT / "tests" / name for name in ("acceptance", "browser", "faults", "package"))
"""Every test in these folders starts programs. Elsewhere a test or module says so with the marker."""
START_EVENTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})

_unmarked_test: str = ""


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark acceptance tests and the tests in the folders whose tests all start programs."""
    for item in items:
        if item.get_closest_marker("acceptance") or any(
            item.path.is_relative_to(folder) for folder in FOLDERS_WITH_PROCESSES
        ):
            item.add_marker(pytest.mark.processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Remember while a test without the marker runs."""
    global _unmarked_test
    _unmarked_test = "" if item.get_closest_marker("processes") else item.nodeid
    try:
        return (yield)
    finally:
        _unmarked_test = ""


def _refuse_unmarked(event: str, _arguments: tuple[Any, ...]) -> None:
    """Refuse to start a program for a test that `make test-fast` takes for one without."""
    if _unmarked_test and event in START_EVENTS:
        raise RuntimeError(f"{_unmarked_test} starts a program ({event}): mark it with pytest.mark.processes")


sys.addaudithook(_refuse_unmarked)
