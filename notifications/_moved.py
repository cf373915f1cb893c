"""Support for the import paths of earlier versions: they still work and emit a DeprecationWarning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def forward(old_module: str, *new_modules: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that finds names in the modules they moved to.

    Args:
        old_module: Dotted path of the module that the names were imported from.
        new_modules: Dotted paths of the modules that are searched, in this order.
        renamed: New name by old name, for names that were also renamed.

    Returns:
        A function that returns the object of a name. It emits a DeprecationWarning that names the new path, and raises
        AttributeError for a name that none of the modules has.
    """

    def find(name: str) -> Any:
        if not name.startswith("__"):
            new_name = (renamed or {}).get(name, name)
            for new_module in new_modules:
                try:
                    value = getattr(import_module(new_module), new_name)
                except AttributeError:
                    continue
                text = f"{old_module}.{name} moved to {new_module}.{new_name}"
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                return value
        raise AttributeError(f"module {old_module!r} has no attribute {name!r}")

    return find
