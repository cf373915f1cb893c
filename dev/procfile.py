"""Run entries of a Procfile as real processes, so that tests and the demo start what production starts.

honcho reads the file. Its runner is not used: it runs in the foreground and stops every process when one ends, while
tests start, kill and restart single processes. mirakuru is not used either, here and in dev.servers: it ends left-over
programs in an atexit handler, which does not run when the owner is killed with SIGKILL. dev.keeper covers that case.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from honcho.environ import parse_procfile

from dev import records
from dev.handle import TERMINATE_SECONDS, Handle
from dev.keeper import private_directory

__all__ = ["Handle", "Processes"]


class Processes:
    """Starts entries of a Procfile; none of them outlives this process, not even when it is killed.

    Args:
        procfile: the file; its folder becomes the working directory.
        logdir: where ``<name>.<n>.log`` goes; made if missing.
        env: variables for all processes, on top of this process's own.
    """

    def __init__(self, procfile: Path, logdir: Path, env: Mapping[str, str] | None = None) -> None:
        self.entries: dict[str, str] = dict(parse_procfile(procfile.read_text()).processes)
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
    """Make the program replace its shell, so that it has the pid. A compound command needs the shell."""
    tokens = shlex.shlex(command, posix=True, punctuation_chars=True)
    tokens.whitespace_split = True
    if any(set(token) <= set("();|&") for token in tokens):
        return command
    # env: the command may begin with assignments, which exec alone does not accept.
    return f"exec env {command.removeprefix('exec ')}"
