"""The settings of this app, read from `settings.NOTIFICATIONS`. Every package may import it; it imports none."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from notifications.conf.options import BOT_FORMATS, DEFAULT_FALLBACK_TEXT, PROVIDERS, ServiceOptions
from notifications.conf.values import ProviderConfig

__all__ = [
    "BOT_FORMATS",
    "DEFAULT_FALLBACK_TEXT",
    "MOVED_COMPOSER",
    "PROVIDERS",
    "RENAMED",
    "ProviderConfig",
    "ServiceOptions",
    "known_names",
    "renamed_keys",
    "service_options",
]

RENAMED = {"FEISHU_EVENT": "EVENT_NAME", "FEISHU_TITLE": "MESSAGE_TITLE", "FEISHU_ACTION_TEXT": "ACTION_TEXT"}
"""Old key to new key. The old keys still work; check W002 names them."""

MOVED_COMPOSER = "notifications.composer.compose"
"""Default of TRIGGER_COMPOSER up to version 0.1. Its texts and paths were those of one product, which has them now."""


def known_names() -> set[str]:
    """Return the keys that `settings.NOTIFICATIONS` may have, old names of renamed keys included."""
    return {spec.name.upper() for spec in dataclasses.fields(ServiceOptions)} | RENAMED.keys()


def renamed_keys() -> dict[str, str]:
    """Return the old keys that `settings.NOTIFICATIONS` still has, each with its new name."""
    return {old: new for old, new in RENAMED.items() if old in getattr(settings, "NOTIFICATIONS", {})}


@lru_cache(maxsize=1)
def service_options() -> ServiceOptions:
    """Return the options of this project. A new key wins over its old name.

    Returns:
        The options of `settings.NOTIFICATIONS`, cached until that setting changes.

    Raises:
        ImproperlyConfigured: A key is unknown or a value is wrong. The text names the key; `manage.py check` reports
            the same without a traceback.
    """
    raw = getattr(settings, "NOTIFICATIONS", {})
    if unknown := sorted(set(raw) - known_names()):
        raise ImproperlyConfigured(f"Unknown keys in settings.NOTIFICATIONS: {', '.join(unknown)}")
    values = {new: raw[old] for old, new in renamed_keys().items()}
    values |= {name: value for name, value in raw.items() if name not in RENAMED}
    try:
        return ServiceOptions(**{name.lower(): value for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"settings.NOTIFICATIONS: {error}") from None


@receiver(setting_changed)
def _forget_options(*, setting: str, **kwargs: object) -> None:
    if setting == "NOTIFICATIONS":
        service_options.cache_clear()
