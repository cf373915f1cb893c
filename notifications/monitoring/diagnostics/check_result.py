"""The result of one check of notifications_doctor."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check found."""

    name: str
    """What was checked, such as "database"; several results may have the same name."""
    state: str
    """OK, WARNING or ERROR."""
    text: str
    remedy: str = ""
    """What to do; empty where the state is OK."""
