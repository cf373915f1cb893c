"""An environment that can be broken, for each fault test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_environment import FaultEnvironment, running_fault_environment


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[FaultEnvironment]:
    """An environment on the database server that all tests share."""
    with running_fault_environment(tmp_path) as running:
        yield running


@pytest.fixture
def own_environment(tmp_path: Path) -> Iterator[FaultEnvironment]:
    """An environment with a PostgreSQL of its own, which may be stopped."""
    with running_fault_environment(tmp_path, own_postgres=True) as running:
        yield running
