"""A process of the project that is ready to run code: starting Django anew each time takes most of a second."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PROGRAM = """
import django, json, os, sys, traceback
django.setup()
for line in sys.stdin:
    child = os.fork()
    if not child:
        scope = {"result": None}
        try:
            exec(json.loads(line), scope)
            answer = {"result": scope["result"]}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        print("ANSWER", json.dumps(answer), flush=True)
        os._exit(0)
    print("ENDED", os.waitpid(child, 0)[1], flush=True)
"""


class Shell:
    """Runs each piece of code in a fork of its own, so that none sees what another left in memory.

    log: the file that takes what the code logs. patience: seconds a piece of code may take.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], log: Path, *, patience: float) -> None:
        self.env = env
        self.patience = patience
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM],
                cwd=folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True,
            )  # fmt: skip

    def run(self, code: str) -> Any:
        """Return what the code leaves in `result`. Raises AssertionError with its traceback, or when it never ends."""
        assert self._process.stdin
        assert self._process.stdout
        answer: dict[str, Any] = {"error": "the code did not come to its end"}
        watch = threading.Timer(self.patience, self._process.kill)
        watch.start()
        try:
            self._process.stdin.write(json.dumps(code) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                kind, _, text = line.partition(" ")
                if kind == "ENDED":
                    break
                if kind == "ANSWER":
                    answer = json.loads(text)
        finally:
            watch.cancel()
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
