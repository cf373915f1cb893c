"""Job queues that need another Python or Node: each kind is installed into a folder of its own under build/peers.

The versions are pinned in `contenders/peers`. What cannot be installed here is skipped by name.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dev.environment import ROOT

SOURCES = ROOT / "benchmarks" / "contenders" / "peers"
FOLDER = ROOT / "build" / "peers"
OLDEST_PYTHON = (3, 12)
"""What pgqueuer and Oban need."""
INSTALL_SECONDS = 600.0
_STAMP = "installed.txt"


class PeerAbsentError(RuntimeError):
    """A job queue cannot be installed on this machine. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A job queue of its own environment."""

    command: Callable[[], str]
    """Installs it if necessary and returns the command that works on its queue; with a number it fills the queue.

    Raises PeerAbsentError.
    """
    left: str
    """Query for the number of jobs that are not done."""
    tables: str
    """Its tables, for ANALYZE."""


def python_command(module: str) -> str:
    """Return the command of a program for the peers' Python."""
    return f"{_python_folder() / 'bin' / 'python'} -m benchmarks.contenders.peers.{module}"


def node_command(program: str) -> str:
    """Return the command of a program for the peers' Node."""
    modules = _node_folder() / "node_modules"
    return f"env NODE_PATH={modules} {modules / '.bin' / 'node'} {SOURCES / program}"


PEERS = {
    "graphile_worker": Peer(
        command=lambda: node_command("graphile_jobs.cjs"),
        left="SELECT count(*) FROM graphile_worker._private_jobs",
        tables="graphile_worker._private_jobs",
    ),
    "pgqueuer": Peer(
        command=lambda: python_command("pgqueuer_jobs"),
        left="SELECT count(*) FROM pgqueuer",
        tables="pgqueuer",
    ),
    "oban": Peer(
        command=lambda: python_command("oban_jobs"),
        left="SELECT count(*) FROM oban_jobs WHERE state <> 'completed'",
        tables="oban_jobs",
    ),
}


@cache
def _python_folder() -> Path:
    requirements = SOURCES / "requirements.txt"
    folder = FOLDER / "python"
    if _installed(folder, requirements):
        return folder
    python = next(_pythons(), None)
    if python is None:
        raise PeerAbsentError(f"no Python {'.'.join(map(str, OLDEST_PYTHON))} or later here")
    shutil.rmtree(folder, ignore_errors=True)
    _run([str(python), "-m", "venv", str(folder)], ROOT)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "-r", str(requirements)], ROOT)
    _stamp(folder, requirements)
    return folder


@cache
def _node_folder() -> Path:
    """Return where graphile-worker is, with the Node that it needs: few systems have one that is new enough."""
    package = SOURCES / "package.json"
    folder = FOLDER / "node"
    if _installed(folder, package):
        return folder
    npm = shutil.which("npm")
    if npm is None:
        raise PeerAbsentError("no npm here")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(package, folder)
    _run([npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"], folder)
    _run([str(folder / "node_modules" / ".bin" / "node"), "--version"], folder)
    _stamp(folder, package)
    return folder


def _pythons() -> Iterator[Path]:
    """Yield the Pythons that are new enough, the newest first."""
    names = [f"python3.{minor}" for minor in range(19, OLDEST_PYTHON[1] - 1, -1)]
    pyenv = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    for name in names:
        on_path = shutil.which(name)
        # A shim of pyenv fails unless its version is selected, so the versions themselves are tried too.
        found = [*([on_path] if on_path else []), *sorted(glob.glob(f"{pyenv}/versions/*/bin/{name}"), reverse=True)]
        yield from (Path(python) for python in found if _works(python))
    if sys.version_info >= OLDEST_PYTHON:
        yield Path(sys.executable)


def _works(python: str) -> bool:
    done = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False)
    return done.returncode == 0


def _installed(folder: Path, pinned: Path) -> bool:
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_bytes() == pinned.read_bytes()


def _stamp(folder: Path, pinned: Path) -> None:
    shutil.copy(pinned, folder / _STAMP)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerAbsentError(f"{Path(command[0]).name}: {type(error).__name__}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise PeerAbsentError(f"{Path(command[0]).name} failed: {last}")
