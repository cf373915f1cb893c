"""The sandbox as a process of its own."""

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
        arguments: without the program's name; by default those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m notifications.testing.sandbox", description="Answer as Feishu does, by script."
    )
    parser.add_argument("--port", type=int, default=0, help="where to listen on 127.0.0.1; 0 takes a free port")
    parser.add_argument("--journal", type=Path, help="file that gets one JSON line for each delivery")
    options = parser.parse_args(arguments)
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    with Sandbox(options.journal, options.port) as sandbox:
        sys.stdout.write(f"{sandbox.origin}\n")
        sys.stdout.flush()
        end.wait()


if __name__ == "__main__":
    main()
