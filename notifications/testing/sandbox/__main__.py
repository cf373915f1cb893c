"""Runs a sandbox as a separate process."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from notifications.testing.sandbox.server import Sandbox


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM or Ctrl-C.

    Args:
        arguments: Command-line arguments without the program's name; by default those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m notifications.testing.sandbox",
        description="Run a local webhook receiver with scripted answers.",
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 selects a free one")
    parser.add_argument("--journal", type=Path, help="file to which each delivery is appended as a JSON line")
    options = parser.parse_args(arguments)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with Sandbox(options.journal, options.port) as sandbox:
        sys.stdout.write(f"{sandbox.origin}\n")
        sys.stdout.flush()
        stopping.wait()


if __name__ == "__main__":
    main()
