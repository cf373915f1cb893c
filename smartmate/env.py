"""Reads the environment: NAME, or NAME_FILE with the path of a file that contains the value.

A value is taken literally. What cannot be read stops the start with an error that names the setting.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from notifications.conf import MOVED_COMPOSER, RENAMED, ServiceOptions

ON = ("true", "1", "yes", "y", "on", "ok")
OFF = ("false", "0", "no", "n", "off")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def read(name: str, *, multiline: bool = False) -> str | None:
    """Return a variable as it is written; None if it is not set.

    Args:
        name: The variable. NAME_FILE wins over NAME, unless it is empty.
        multiline: Whether the value may contain line breaks and tabs.

    Raises:
        ImproperlyConfigured: The file cannot be read or contains nothing, or the value has a control character.
    """
    path = os.environ.get(f"{name}_FILE", "")
    value = _read_file(name, path) if path else os.environ.get(name)
    if value is not None and re.search(r"[\x00-\x08\x0b-\x1f\x7f]" if multiline else r"[\x00-\x1f\x7f]", value):
        # A second line break at the end of a file is the usual one: nobody could ever send such a token.
        raise refused(name, "must not contain line breaks or other control characters")
    return value


def _read_file(name: str, path: str) -> str:
    try:
        content = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or "it is not UTF-8 text"
        raise ImproperlyConfigured(f"{name}_FILE: the file cannot be read: {reason}.") from None
    value = re.sub(r"\r?\n\Z", "", content)
    if not value.strip():
        raise ImproperlyConfigured(f"{name}_FILE: the file contains no value.")
    return value


def refused(name: str, problem: str) -> ImproperlyConfigured:
    """Return the error for a value that cannot be used. The value is not in the text, as it may be a secret."""
    return ImproperlyConfigured(f"{name} {problem}.")


def text(name: str, default: str) -> str:
    """Return a text that must not be blank where it is set.

    Raises:
        ImproperlyConfigured: It is blank.
    """
    value = read(name)
    if value is None:
        return default
    if not value.strip():
        raise refused(name, "is blank. Remove it, or set a value")
    return value


def word(name: str, default: str, allowed: Collection[str]) -> str:
    """Return one of a closed list of words.

    Raises:
        ImproperlyConfigured: It is another word.
    """
    value = text(name, default)
    if value not in allowed:
        raise refused(name, f"must be one of {', '.join(allowed)}")
    return value


def secret(name: str) -> str:
    """Return a variable that has no default.

    Raises:
        ImproperlyConfigured: It is not set; the text names it.
    """
    value = read(name)
    if value is None or not value.strip():
        raise ImproperlyConfigured(f"Set {name}, or {name}_FILE to the path of a file that holds it.")
    return value


def switch(name: str, *, default: bool) -> bool:
    """Return a switch that is on or off.

    Raises:
        ImproperlyConfigured: It is not one of the words of ON and OFF, in small or capital letters.
    """
    value = read(name)
    return default if value is None else parse_switch(name, value)


def parse_switch(name: str, value: str) -> bool:
    """Return whether a word means on.

    Raises:
        ImproperlyConfigured: It is not one of the words of ON and OFF.
    """
    if (lowered := value.strip().lower()) in ON + OFF:
        return lowered in ON
    raise refused(name, f"must be true or false (also {', '.join(ON[1:] + OFF[1:])})")


def whole_number(name: str, default: int, *, minimum: int, maximum: int) -> int:
    """Return a whole number within bounds.

    Raises:
        ImproperlyConfigured: It is no whole number, or out of bounds.
    """
    value = read(name)
    number = default if value is None else _parse_whole(name, value)
    if not minimum <= number <= maximum:
        raise refused(name, f"must be between {minimum} and {maximum}")
    return number


def comma_separated(name: str) -> list[str]:
    """Return the items of a comma-separated variable; an empty list by default."""
    return _items(read(name, multiline=True) or "")


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def service_settings(redis_url: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return settings.NOTIFICATIONS. NOTIFICATIONS_<KEY> sets each number and text.

    Args:
        redis_url: Address of Redis for locks and nudges; empty: neither.
        defaults: The product's values for keys that the environment does not set.

    Returns:
        Values by key. A key that the environment sets by its old name keeps that name, so that a check reports it.

    Raises:
        ImproperlyConfigured: A variable has a value of the wrong type; the text names it.
    """
    secret("NOTIFICATIONS_ENCRYPTION_KEYS")
    values: dict[str, Any] = defaults | {
        "REDIS_URL": redis_url,
        **{
            key: comma_separated(f"NOTIFICATIONS_{key}")
            for key in ("ENCRYPTION_KEYS", "ALERT_EMAILS", "FEISHU_HOSTS", "SANDBOX_ORIGINS")
        },
    }
    for old_name, name in RENAMED.items():
        if (old := read(f"NOTIFICATIONS_{old_name}")) is not None and read(f"NOTIFICATIONS_{name}") is None:
            values[old_name] = old
            values.pop(name, None)
    for option in fields(ServiceOptions):
        name = option.name.upper()
        if name != "REDIS_URL" and (value := _read_option(f"NOTIFICATIONS_{name}", option.default)) is not None:
            values[name] = value
    if values.get("TRIGGER_COMPOSER") == MOVED_COMPOSER:  # the default of earlier versions, written out
        values["TRIGGER_COMPOSER"] = defaults["TRIGGER_COMPOSER"]
    return values


def _read_option(name: str, default: object) -> str | int | float | None:
    """Return an option of the app in the type of its default; None if it is not set, or is no number or text."""
    if not isinstance(default, (str, int, float)):
        return None
    value = read(name, multiline=name == "NOTIFICATIONS_FALLBACK_TEXT")
    if value is None or isinstance(default, str):
        return value
    return _parse_whole(name, value) if isinstance(default, int) else _parse_number(name, value)


def _parse_whole(name: str, value: str) -> int:
    if not _WHOLE.fullmatch(value.strip()):
        raise refused(name, "must be a whole number")
    return int(value)


def _parse_number(name: str, value: str) -> float:
    if not _NUMBER.fullmatch(value.strip()) or float(value) in (float("inf"), float("-inf")):
        raise refused(name, "must be a number")
    return float(value)
