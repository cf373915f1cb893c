"""Checks and converts the values of single options."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

MAX_WHOLE_NUMBER = 2_147_483_647
"""Largest whole number of an option: that of PostgreSQL's type integer."""
MAX_SECONDS = 100_000_000_000
"""Longest time of an option, about 3,000 years. The time that results still has a year of four digits."""


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """One entry of PROVIDERS."""

    backend: str
    """Dotted path of the provider class."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments for the class."""


def coerce(spec: dataclasses.Field[Any], value: Any) -> Any:
    """Convert the value of an option to the type of its default.

    Args:
        spec: The field of the options class.
        value: The value from the settings.

    Returns:
        The value; the default where a number is zero or less.

    Raises:
        TypeError: The value has the wrong type.
        ValueError: A number is not finite.
    """
    name = spec.name.upper()
    if name == "PROVIDERS":
        return _provider_configs(value)
    default = spec.default_factory() if spec.default_factory is not dataclasses.MISSING else spec.default
    if isinstance(value, timedelta) and isinstance(default, float):
        value = value.total_seconds()
    if isinstance(default, (int, float)):
        whole = isinstance(default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise TypeError(f"{name} must be {'a whole number' if whole else 'a number of seconds'}")
        if not value <= sys.float_info.max:  # NaN too
            raise ValueError(f"{name} must be finite")
        if value > (maximum := MAX_WHOLE_NUMBER if whole else MAX_SECONDS):
            raise ValueError(f"{name} must be at most {maximum}")
        return (value if whole else float(value)) if value > 0 else default
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"{name} must be a list of strings")
        return tuple(value)
    if isinstance(default, dict):
        if not isinstance(value, Mapping) or not all(isinstance(x, str) for pair in value.items() for x in pair):
            raise TypeError(f"{name} must map names to strings")
        return dict(value)
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string")
    return value


def _provider_configs(value: Any) -> dict[str, ProviderConfig]:
    if not isinstance(value, Mapping) or not all(isinstance(channel, str) for channel in value):
        raise TypeError("PROVIDERS must map names to dotted paths or {'BACKEND': ..., 'OPTIONS': {...}}")
    return {channel: _provider_config(channel, entry) for channel, entry in value.items()}


def _provider_config(channel: str, entry: Any) -> ProviderConfig:
    match entry:
        case str():
            return ProviderConfig(entry)
        case ProviderConfig():
            return entry
        case {"BACKEND": str(backend), **rest} if not rest.keys() - {"OPTIONS"}:
            options = rest.get("OPTIONS", {})
            if isinstance(options, Mapping) and all(isinstance(name, str) for name in options):
                return ProviderConfig(backend, dict(options))
    raise TypeError(f"PROVIDERS: {channel!r} must be a dotted path or {{'BACKEND': ..., 'OPTIONS': {{...}}}}")
