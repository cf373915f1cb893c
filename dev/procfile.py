"""Run entries of a Procfile as real processes, so that tests and the demo start what production starts."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from dev import records
from dev.handle import TERMINATE_SECONDS, Handle
from dev.keeper import private_directory

__all__ = ["Handle", "Processes", "parse"]

_LINE = re.compile(r"(?P<name>[A-Za-z0-9_-]+):\s*(?P<command>\S.*)")


def parse(text: str) -> dict[str, str]:
    """Read the entries of a Procfile.

    Args:
        text: ``name: command`` lines, blank lines and ``#`` comments.

    Returns:
        The commands by name, in the file's order.

    Raises:
        ValueError: a line is none of these, or a name comes twice.
    """
    entries: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"Procfile line {number} is not 'name: command': {line!r}")
        if match["name"] in entries:
            raise ValueError(f"Procfile line {number} has {match['name']!r} for the second time")
        entries[match["name"]] = match["command"]
    return entries


class Processes:
    """Starts entries of a Procfile; none of them outlives this process, not even when it is killed.

    Args:
        procfile: the file; its folder becomes the working directory.
        logdir: where ``<name>.<n>.log`` goes; made if missing.
        env: variables for all processes, on top of this process's own.
    """

    def __init__(self, procfile: Path, logdir: Path, env: Mapping[str, str] | None = None) -> None:
        self.entries = parse(procfile.read_text())
        self.handles: list[Handle] = []
        self._folder = procfile.resolve().parent
        self._logdir = logdir
        self._env = dict(env or {})
        self._count: Counter[str] = Counter()
        self._stack = contextlib.ExitStack()
        self._directory: Path | None = None

    def start(self, name: str, env: Mapping[str, str] | None = None) -> Handle:
        """Start one more instance of an entry.

        Args:
            name: the entry's name.
            env: variables for this instance alone; ``$NAME`` in the command stands for them.

        Raises:
            KeyError: the Procfile has no such entry.
        """
        command = self.entries[name]
        if self._directory is None:
            self._directory = self._stack.enter_context(private_directory())
        self._count[name] += 1
        label = f"{name}.{self._count[name]}"
        self._logdir.mkdir(parents=True, exist_ok=True)
        log_path = self._logdir / f"{label}.log"
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _shell_command(command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self._folder,
                env=self._environment(env or {}),
            )
        records.record(self._directory, label, process.pid, stop=signal.SIGKILL, group=True)
        handle = Handle(label, process, log_path, self._directory)
        self.handles.append(handle)
        return handle

    def stop_all(self, timeout: float = TERMINATE_SECONDS) -> None:
        """Terminate everything that runs, all at once, the last started first.

        Args:
            timeout: seconds each may take before it is killed.
        """
        for handle in reversed(self.handles):
            handle.ask_to_end()
        for handle in reversed(self.handles):
            handle.finish(timeout)
        self.handles.clear()
        self._directory = None
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop_all()

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        # Unbuffered, because the logs are read while it runs.
        merged = {"PYTHONUNBUFFERED": "1", **os.environ, **self._env, **env}
        # The programs of the environment that runs us, activated or not. Not resolved: venvs link to the same python.
        merged["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), merged.get("PATH", os.defpath)])
        return merged


def _shell_command(command: str) -> str:
    """Let the program take the shell's place, so that the pid is its own; a compound command needs its shell."""
    words = shlex.shlex(command, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    if any(set(word) <= set("();|&") for word in words):
        return command
    # env: the command may begin with assignments, which exec alone would not take.
    return f"exec env {command.removeprefix('exec ')}"
