"""Notes of running programs on disk, so that another process can stop them when their owner no longer can."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

GRACE_SECONDS = 5.0  # between the first signal and SIGKILL
SAME_SECONDS = 1.0  # create times are counted in clock ticks; two programs with one pid are minutes apart


def record(directory: Path, name: str, pid: int, *, stop: signal.Signals, group: bool = False) -> None:
    """Note a running program, so that it does not outlive the owner of the directory.

    Args:
        directory: a private directory.
        name: file name of the note, unique in the directory.
        pid: the program's process id.
        stop: the signal that ends it; SIGKILL follows after GRACE_SECONDS.
        group: signal the process group that the program leads, not the program alone.
    """
    note = {"pid": pid, "created": psutil.Process(pid).create_time(), "stop": int(stop), "group": group}
    draft = directory / f"{name}.draft"
    draft.write_text(json.dumps(note))
    draft.rename(directory / f"{name}.json")


def forget(directory: Path, name: str) -> None:
    """Drop the note of a program that has ended.

    Args:
        directory: as given to record().
        name: as given to record().
    """
    (directory / f"{name}.json").unlink(missing_ok=True)


def stop_recorded(directory: Path, name: str) -> list[psutil.Process]:
    """Send a recorded program its signal, if it is still that program and not another one with its number.

    Args:
        directory: as given to record().
        name: as given to record().

    Returns:
        The program and its descendants, for wait_gone().
    """
    try:
        note = json.loads((directory / f"{name}.json").read_text())
        pid, created, stop, group = int(note["pid"]), note["created"], int(note["stop"]), note["group"]
    except (OSError, ValueError, KeyError):
        return []
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created) > SAME_SECONDS:
            return []
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        family = []  # the leader has ended; the rest of its group still has its id
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM where only a zombie is left
        if group:
            os.killpg(pid, stop)
        elif family:
            os.kill(pid, stop)
    return family


def wait_gone(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end; they need not be children of ours.

    Args:
        processes: what to wait for.
        seconds: how long.

    Returns:
        Those still running.
    """
    deadline = time.monotonic() + seconds
    while (remaining := [process for process in processes if _running(process)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return remaining


def _running(process: psutil.Process) -> bool:
    try:
        # A container may have no process that reaps orphans. A zombie counts as ended.
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
