"""One fresh environment for each acceptance test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import ProjectEnvironment, running_environment


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[ProjectEnvironment]:
    with running_environment(tmp_path, ProjectEnvironment) as running:
        yield running
