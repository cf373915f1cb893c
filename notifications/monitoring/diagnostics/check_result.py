"""A sign: what was found out about one thing."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, ERROR = "ok", "warning", "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """What was found out about one thing."""

    name: str
    state: str
    text: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""
