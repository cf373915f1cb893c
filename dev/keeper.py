"""Private directories for programs that we start, and the process that removes them however their owner ends.

The owner of a private directory holds a file lock in it and the write end of its keeper's standard input. Both vanish
with the owner, even on SIGKILL: the keeper, in a session of its own, reads end-of-file, stops every program recorded in
the directory and removes it. If the keeper was killed too, the next sweep() finds the lock free and does the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from dev import records

PREFIX = "smartmate-services-"
YOUNG_SECONDS = 60.0  # a directory without a lock may be one that is being made right now
_ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def private_directory() -> Iterator[Path]:
    """Create a directory under the temporary directory, and remove it at the end, also after SIGKILL.

    First removes the directories of dead owners. Programs recorded with records.record() are stopped at the end.

    Yields:
        The directory; only this user (and, for root, PostgreSQL's user) can go through it.
    """
    sweep()
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    if os.geteuid() == 0:
        directory.chmod(0o711)  # PostgreSQL runs as another user then, and its data lies below
    lock = _take_lock(directory)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "dev.keeper", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=_ROOT,
    )
    with keeper:  # leaving it closes the pipe and waits; by then there is nothing left to clear up
        try:
            yield directory
        finally:
            take_down(directory)
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing alone would not do if a fork still shares it
            os.close(lock)


def sweep() -> None:
    """Stop the programs and remove the directories whose owner is dead; leave the others alone."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            info = directory.lstat()
            if info.st_uid != os.geteuid() or not stat.S_ISDIR(info.st_mode):
                continue
            try:
                lock = os.open(directory / "lock", os.O_RDWR)
            except FileNotFoundError:
                if time.time() - info.st_mtime > YOUNG_SECONDS:
                    take_down(directory)
                continue
            try:
                # A lock, not the owner's pid: it cannot be reused and does not depend on the clock.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                take_down(directory)
            except BlockingIOError:
                pass
            finally:
                os.close(lock)


def take_down(directory: Path) -> None:
    """Stop every program recorded in a directory and remove the directory.

    Args:
        directory: a private directory of this process or of a dead one.
    """
    family = [process for note in directory.glob("*.json") for process in records.stop_recorded(directory, note.stem)]
    remaining = records.wait_gone(family, records.GRACE_SECONDS)
    for process in remaining:
        with contextlib.suppress(psutil.Error):
            process.kill()
    records.wait_gone(remaining, records.GRACE_SECONDS)
    deadline = time.monotonic() + records.GRACE_SECONDS
    while directory.exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)  # fails while a child of a stopped program still writes
        time.sleep(0.01 if directory.exists() else 0)


def _take_lock(directory: Path) -> int:
    """Create the lock file already locked, so that no sweep ever sees it free."""
    draft = directory / "lock.draft"
    lock = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    draft.rename(directory / "lock")
    return lock


def main(directory: Path) -> None:
    """Run as the keeper: wait for the end of the owner, then stop its programs and remove the directory.

    Args:
        directory: the owner's private directory.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the owner's end counts
    sys.stdin.buffer.read()
    with contextlib.suppress(FileNotFoundError):
        lock = os.open(directory / "lock", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)  # the pipe and the lock of a dying owner do not close at the same instant
        take_down(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
