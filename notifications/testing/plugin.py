"""Fixtures for pytest: ``pytest_plugins = ["notifications.testing.plugin"]`` in your top conftest.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from notifications.testing.isolation import using_memory, using_sandbox

pytest.register_assert_rewrite("notifications.testing.conformance")

if TYPE_CHECKING:
    from notifications.providers.memory import MemoryProvider
    from notifications.testing.sandbox.server import Sandbox


@pytest.fixture
def notifications_memory() -> Iterator[MemoryProvider]:
    """Messages go nowhere; `requests` of this provider holds them, `script()` sets its answers."""
    with using_memory() as provider:
        yield provider


@pytest.fixture
def notifications_sandbox() -> Iterator[Sandbox]:
    """A stand-in for Feishu that real HTTP requests go to; store its `webhook_url(key)` in a user's channel."""
    with using_sandbox() as running:
        yield running
