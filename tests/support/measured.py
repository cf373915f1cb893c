"""Lets coverage measure a process that a test starts."""

from __future__ import annotations

import coverage

from tests.support.paths import ROOT


def measured_env() -> dict[str, str]:
    """Return the variables that start coverage in a Python process; none if this run measures none.

    The package `coverage` starts itself in each process that has the first variable. Forked children inherit it.
    """
    if coverage.Coverage.current() is None:
        return {}
    return {"COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml"), "COVERAGE_FILE": str(ROOT / ".coverage")}
