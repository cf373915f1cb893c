"""Failpoints: `FAULTS="after_claim=kill"` kills the process when it reaches that point.

Points are named by the steps of a delivery, of a replay operation or of the relay of signals. Actions: `kill`
(SIGKILL), `stop` (SIGSTOP), `hold` (wait until the mark has content), `raise` (a database error). An action happens
once for all processes: the first process creates a mark, a file in the folder FAULT_MARKS, and a test can wait for that
file. `raise/4` happens at every fourth call instead. `kill@TRACE` happens for each record with that trace id. Commas
separate several failpoints.
"""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

from django.db import OperationalError

POINTS = {
    "before_nudge": ("notifications.broker.nudge", "nudge", "before"),
    "received": ("notifications.delivery.process_drain", "engine_with_redis", "before"),
    "before_claim": ("notifications.delivery.engine", "claim", "before"),
    "after_claim": ("notifications.delivery.engine", "claim", "after"),
    "before_send": ("notifications.delivery.senders", "attempt_send attempt_exchange", "before"),
    "after_send": ("notifications.delivery.senders", "end_attempt", "before"),
    "before_settle": ("notifications.delivery.settle", "settle_batch", "before"),
    "after_settle": ("notifications.delivery.settle", "settle_batch", "after"),
    "within_batch": ("notifications.replay.runner", "replay_notifications", "after"),
    "after_batch": ("notifications.replay.runner", "run_next_batch", "after"),
    "events_taken": ("notifications.lifecycle.relay", "_take", "after"),
    "before_receiver": ("notifications.lifecycle.relay", "_call", "before"),
    "after_receiver": ("notifications.lifecycle.relay", "_call", "after"),
}
"""Module and functions of each point, and whether the point is before or after the functions."""


def install(faults: str) -> None:
    """Install actions at points.

    Args:
        faults: Pairs `point=action`, separated by commas.

    Raises:
        ValueError: There is no such point or action.
    """
    for fault in filter(None, faults.split(",")):
        point, _, action = fault.partition("=")
        if point not in POINTS:
            raise ValueError(f"no such failpoint: {point!r}")
        module, names, side = POINTS[point]
        act = _action(point, action)
        for name in names.split():
            _wrap(importlib.import_module(module), name, side, act)


def _wrap(module: ModuleType, name: str, side: str, act: Callable[[tuple[Any, ...]], None]) -> None:
    function = getattr(module, name)

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if side == "before":
            act(args)
            return function(*args, **kwargs)
        result = function(*args, **kwargs)
        if result or result is None:  # a claim without rows does not count
            act(args)
        return result

    setattr(module, name, wrapped)


def _action(point: str, text: str) -> Callable[[tuple[Any, ...]], None]:
    if text.startswith("kill@"):
        trace = text.removeprefix("kill@")

        def kill_at(args: tuple[Any, ...]) -> None:
            if any(getattr(argument, "trace_id", None) == trace for argument in args):
                os.kill(os.getpid(), signal.SIGKILL)

        return kill_at
    if text.startswith("raise/"):
        calls, every = itertools.count(1), int(text.removeprefix("raise/"))

        def raise_sometimes(args: tuple[Any, ...]) -> None:
            if next(calls) % every == 0:
                raise OperationalError("a failpoint: the reply was lost")

        return raise_sometimes
    act = {"kill": _kill, "stop": _stop, "hold": _hold, "raise": _raise}.get(text)
    if act is None:
        raise ValueError(f"no such action: {text!r}")
    mark = Path(os.environ["FAULT_MARKS"]) / point

    def once(args: tuple[Any, ...]) -> None:
        try:
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        act(mark)

    return once


def _kill(mark: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(mark: Path) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _hold(mark: Path) -> None:
    while mark.stat().st_size == 0:
        time.sleep(0.02)


def _raise(mark: Path) -> None:
    raise OperationalError("a failpoint: the reply was lost")
