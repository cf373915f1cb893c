"""Providers: each sends a message to one kind of endpoint and interprets the response.

A provider knows neither records nor the database. `delivery` and `channels` call providers; providers import only
`content`, `security`, `telemetry` and modules below them. docs/providers.md explains how to add a provider.
"""

from __future__ import annotations

import contextlib
from functools import cache

from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from notifications.conf import service_options
from notifications.providers.base import Provider


@cache
def get_provider(channel: str) -> Provider:
    """Return the provider of a channel. Each process creates one per channel.

    Args:
        channel: A key of PROVIDERS.

    Returns:
        An instance of the configured class. It was called with the entry's OPTIONS as keyword arguments.

    Raises:
        KeyError: The channel has no entry in PROVIDERS.
        ImportError: The class cannot be imported.
        TypeError: The class does not take one of the options.
    """
    config = service_options().providers[channel]
    provider: Provider = import_string(config.backend)(**config.options)
    return provider


def configured_providers() -> dict[str, Provider]:
    """Return the providers by channel. The engine ignores records of other channels."""
    return {channel: get_provider(channel) for channel in service_options().providers}


def import_providers() -> None:
    """Import the configured classes and create none, so that processes which are forked later share them."""
    for config in service_options().providers.values():
        with contextlib.suppress(ImportError):  # a system check reports it
            import_string(config.backend)


@receiver(setting_changed)
def _forget_providers(*, setting: str, **kwargs: object) -> None:
    if setting == "NOTIFICATIONS":
        get_provider.cache_clear()
