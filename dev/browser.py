"""Starts a browser that is already installed. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-quic"),
    *("--disable-background-networking", "--disable-component-update"),
)


def find() -> Path | None:
    """Return the path of Chromium or Chrome, or None."""
    paths = [path for name in NAMES if (path := shutil.which(name))]
    mac = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
    return Path(paths[0]) if paths else mac if mac.exists() else None


@contextlib.contextmanager
def launch(playwright: Playwright) -> Iterator[Browser]:
    """Start the browser without a window. Raises RuntimeError if none is installed."""
    path = find()
    if path is None:
        raise RuntimeError(f"no browser found; looked for {', '.join(NAMES)}")
    browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
    try:
        yield browser
    finally:
        browser.close()
