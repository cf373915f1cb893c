"""Settings that keep a test away from the network: the memory provider, or a local sandbox instead of Feishu."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from notifications.testing.sandbox.server import Sandbox

if TYPE_CHECKING:
    from notifications.providers.memory import MemoryProvider

MEMORY_PROVIDER = "notifications.providers.memory.MemoryProvider"


@contextlib.contextmanager
def using_memory(channel: str = "feishu") -> Iterator[MemoryProvider]:
    """Use the memory provider for every channel while the block runs.

    Args:
        channel: The channel whose provider is returned.

    Yields:
        The provider. Its `requests` are the messages that would have been sent; `script` sets its next results.
    """
    from notifications.conf import service_options  # Django may not be set up when this module is imported
    from notifications.providers import get_provider
    from notifications.providers.memory import MemoryProvider

    with _override_notifications(PROVIDERS=dict.fromkeys([*service_options().providers, channel], MEMORY_PROVIDER)):
        provider = get_provider(channel)
        assert isinstance(provider, MemoryProvider)  # noqa: S101  for the type's sake
        yield provider


@contextlib.contextmanager
def using_sandbox() -> Iterator[Sandbox]:
    """Run a sandbox while the block runs, and accept its origin as a webhook address.

    Yields:
        The sandbox. Store its `webhook_url(key)` in a user's channel. `script(key, ...)` sets its answers;
        `deliveries(key)` returns what arrived.
    """
    from notifications.conf import service_options

    with (
        Sandbox() as running,
        _override_notifications(SANDBOX_ORIGINS=[*service_options().sandbox_origins, running.origin]),
    ):
        yield running


@contextlib.contextmanager
def _override_notifications(**keys: Any) -> Iterator[None]:
    """Change keys of settings.NOTIFICATIONS. REDIS_URL becomes empty, so that a test cannot wake a real worker."""
    from django.conf import settings
    from django.test import override_settings

    with override_settings(NOTIFICATIONS=getattr(settings, "NOTIFICATIONS", {}) | {"REDIS_URL": ""} | keys):
        yield
