"""Settings under which a test reaches nothing outside: the memory provider, or the sandbox in place of Feishu."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from notifications.testing.sandbox.server import Sandbox

if TYPE_CHECKING:
    from notifications.providers.memory import MemoryProvider

MEMORY = "notifications.providers.memory.MemoryProvider"


@contextlib.contextmanager
def using_memory(channel: str = "feishu") -> Iterator[MemoryProvider]:
    """Let every channel's messages go nowhere while the block runs, and give the provider of one.

    Its `requests` are what would have been sent; `script()` sets its next answers.
    """
    from notifications.conf import service_options  # not before Django is set up
    from notifications.providers import get_provider
    from notifications.providers.memory import MemoryProvider

    with _notifications(PROVIDERS=dict.fromkeys([*service_options().providers, channel], MEMORY)):
        provider = get_provider(channel)
        assert isinstance(provider, MemoryProvider)  # noqa: S101  for the type's sake
        yield provider


@contextlib.contextmanager
def using_sandbox() -> Iterator[Sandbox]:
    """Run a sandbox while the block runs, and let webhooks lead to it.

    Store `webhook_url(key)` in a user's channel; `script(key, ...)` sets the answers, `deliveries(key)` what arrived.
    """
    from notifications.conf import service_options

    with Sandbox() as running, _notifications(SANDBOX_ORIGINS=[*service_options().sandbox_origins, running.origin]):
        yield running


@contextlib.contextmanager
def _notifications(**keys: Any) -> Iterator[None]:
    """Change keys of settings.NOTIFICATIONS. Without Redis, so that no nudge of a test wakes a real worker."""
    from django.conf import settings
    from django.test import override_settings

    with override_settings(NOTIFICATIONS=getattr(settings, "NOTIFICATIONS", {}) | {"REDIS_URL": ""} | keys):
        yield
