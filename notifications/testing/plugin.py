"""pytest fixtures. Use them with ``pytest_plugins = ["notifications.testing.plugin"]`` in your top conftest.py."""

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
    """Send nothing: this provider keeps the messages in `requests` and returns the results of `script`."""
    with using_memory() as provider:
        yield provider


@pytest.fixture
def notifications_sandbox() -> Iterator[Sandbox]:
    """Run a local webhook receiver. Store its `webhook_url(key)` in a user's channel."""
    with using_sandbox() as running:
        yield running
