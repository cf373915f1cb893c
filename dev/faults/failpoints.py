"""Failpoints: ``FAULTS="after_claim=kill"`` kills the process when it comes to that point.

Points are named after the steps of a delivery, or of a replay operation. Actions: ``kill`` (SIGKILL), ``stop``
(SIGSTOP), ``hold`` (wait until something is written into the mark), ``raise`` (a database error). An action happens
once, whichever process comes first: it leaves a mark, a file in the folder FAULT_MARKS, that others can wait for.
``raise/4`` happens at every fourth call instead; ``kill@TRACE`` whenever the record has that trace id. Several are
separated by commas.
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
from typing import Any

from django.db import OperationalError

POINTS = {
    "before_nudge": ("notifications.api", "nudge", "before"),
    "received": ("notifications.tasks", "engine_with_redis", "before"),
    "before_claim": ("notifications.delivery.engine", "claim", "before"),
    "after_claim": ("notifications.delivery.engine", "claim", "after"),
    "before_send": ("notifications.delivery.engine", "attempt_send", "before"),
    "after_send": ("notifications.delivery.engine", "attempt_send", "after"),
    "before_settle": ("notifications.delivery.settle", "settle_batch", "before"),
    "after_settle": ("notifications.delivery.settle", "settle_batch", "after"),
    "within_batch": ("notifications.replay.runner", "replay_notifications", "after"),
    "after_batch": ("notifications.replay.runner", "step", "after"),
}
"""Name of each point: the function it lies at, and on which side of it."""


def install(faults: str) -> None:
    """Put actions at points.

    Args:
        faults: ``point=action`` pairs, separated by commas.

    Raises:
        ValueError: there is no such point or action.
    """
    for fault in filter(None, faults.split(",")):
        point, _, action = fault.partition("=")
        if point not in POINTS:
            raise ValueError(f"no such failpoint: {point!r}")
        _wrap(point, _action(point, action))


def _wrap(point: str, act: Callable[[tuple[Any, ...]], None]) -> None:
    module_name, name, side = POINTS[point]
    module = importlib.import_module(module_name)
    function = getattr(module, name)

    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if side == "before":
            act(args)
            return function(*args, **kwargs)
        result = function(*args, **kwargs)
        if result or result is None:  # a claim that found nothing is not the one meant
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
                raise OperationalError("a failpoint: the answer got lost")

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
    raise OperationalError("a failpoint: the answer got lost")
