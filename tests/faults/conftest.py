"""A site that can be broken, for each fault test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault_environment import FaultSite, running_fault_site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[FaultSite]:
    """A site on the database server that all tests share."""
    with running_fault_site(tmp_path) as running:
        yield running


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[FaultSite]:
    """A site with a PostgreSQL of its own, which may be stopped."""
    with running_fault_site(tmp_path, own_postgres=True) as running:
        yield running
