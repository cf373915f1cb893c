"""Install the wheel."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path


def pip(*arguments: str) -> None:
    """Run pip without the network: everything it needs is here."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run([*command, "--no-deps", "--no-index"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def virtual_environment(folder: Path) -> Path:
    """Make an environment that has all packages of this one, and none of its own yet; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    [site_packages] = folder.glob("lib/python*/site-packages")
    (site_packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"
