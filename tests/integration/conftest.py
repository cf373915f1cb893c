"""Fixtures of the integration tests."""

from __future__ import annotations

import pytest

from tests.support.delivery import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock that moves only when the test moves it."""
    return Clock()
