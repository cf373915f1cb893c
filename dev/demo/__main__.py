"""Play the demo: `python -m dev.demo [--once]`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import django

from dev.demo.environment import demo_environment

REFRESH = 0.25
INTERRUPTED = 130
PATIENCE = 75.0
"""Seconds all parts have to reach their states."""


def main() -> int:
    """Run the demo. Returns 0 if every notification reached its expected state."""
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument(
        "--once", action="store_true", help="end after the results; exit status 0 if all are as expected"
    )
    once = parser.parse_args().once
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopper(stop))
    with demo_environment() as environment:
        django.setup()
        # After setup: these import the models.
        from dev.demo.scenario import Scenario
        from dev.demo.show import Show

        print("starting web, a worker of two processes, beat and the sandbox", flush=True)
        environment.start_processes()
        scenario = Scenario(environment)
        scenario.prepare()
        trouble: list[BaseException] = []
        player = threading.Thread(target=_play, args=(scenario.play, trouble), daemon=True)
        player.start()
        with Show(scenario) as show:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and not trouble and (player.is_alive() or not scenario.ended()):
                show.refresh()
                if stop.wait(REFRESH):
                    return INTERRUPTED
            show.refresh()
        if trouble:
            raise trouble[0]
        good = show.verdicts()
        if not once:
            login = f"login {scenario.operator} {scenario.password}"
            print(f"demo ready: http://127.0.0.1:{environment.port}/admin/ {login}", flush=True)
            stop.wait()
        return 0 if good else 1


def _stopper(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    """Return a handler: end in good order at the first signal, at once at a later one.

    A signal to the whole process group arrives twice, once directly and once through `dev.services`: that is one.
    """
    first = 0.0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        if stop.is_set() and time.monotonic() > first + 1:
            os._exit(128 + number)  # the keeper still stops every program that was started
        first = first or time.monotonic()
        stop.set()

    return handle


def _play(play: Callable[[], None], trouble: list[BaseException]) -> None:
    try:
        play()
    except BaseException as error:
        trouble.append(error)


if __name__ == "__main__":
    sys.exit(main())
