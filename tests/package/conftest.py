"""The wheel, built once and installed by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host_project import Host
from tests.support.installation import pip
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT))
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="session")
def site_packages(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("site-packages")
    pip("install", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture(scope="module")
def host(site_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A project with no more settings than it must have, migrated."""
    with Host.started(tmp_path_factory.mktemp("host"), site_packages) as host:
        host.manage("migrate", "--verbosity", "0")
        yield host
