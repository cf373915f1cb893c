"""Play the demo: `python -m dev.demo [--once]`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time

import django

from dev.demo.stage import stage

REFRESH = 0.25
PATIENCE = 75.0
"""Seconds all parts have to reach their states."""


def main() -> int:
    """Run the demo. Returns 0 if every notification ended as it should."""
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the verdicts; the exit status tells")
    once = parser.parse_args().once
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with stage() as running:
        django.setup()
        # After setup: these import the models.
        from dev.demo.scenario import Scenario
        from dev.demo.show import Show

        print("starting web, two workers, beat and the sandbox", flush=True)
        running.start()
        scenario = Scenario(running)
        scenario.prepare()
        trouble: list[BaseException] = []
        player = threading.Thread(target=_play, args=(scenario.play, trouble), daemon=True)
        player.start()
        with Show(scenario) as show:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and not trouble and (player.is_alive() or not scenario.ended()):
                show.refresh()
                time.sleep(REFRESH)
            show.refresh()
        if trouble:
            raise trouble[0]
        good = show.verdicts()
        if not once:
            login = f"login {scenario.operator} {scenario.password}"
            print(f"demo ready: http://127.0.0.1:{running.port}/admin/ {login}", flush=True)
            threading.Event().wait()
        return 0 if good else 1


def _play(play: object, trouble: list[BaseException]) -> None:
    try:
        play()  # type: ignore[operator]
    except BaseException as error:
        trouble.append(error)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
