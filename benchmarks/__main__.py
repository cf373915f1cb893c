"""The benchmark: rounds, each measuring everything that is wanted once, one after the other; then the table.

From the environment: QUICK=1 (smaller, about 15 minutes), BENCH_ONLY (keys, comma separated), BENCH_ROUNDS (3) and
BENCH_JSON (a file for the figures). GROWTH=1 measures how it grows with processes and rows instead, and nothing else.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from pathlib import Path

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import NAMES, Results
from benchmarks.size import FULL, QUICK
from benchmarks.watching import BenchmarkError
from dev.keeper import private_directory
from dev.waiting import WaitTimeoutError


def main() -> int:
    """Measure and report; return 0 whatever was reached, 2 when the run is worth nothing."""
    quick, growth = (os.environ.get(name, "") not in ("", "0") for name in ("QUICK", "GROWTH"))
    size = QUICK if quick else FULL
    wanted = frozenset(filter(None, os.environ.get("BENCH_ONLY", "").split(","))) or NAMES
    if unknown := wanted - NAMES:
        print(f"no such figure: {', '.join(sorted(unknown))}; known: {', '.join(sorted(NAMES))}")
        return 2
    rounds = int(os.environ.get("BENCH_ROUNDS") or 3)
    began, results, load = time.monotonic(), Results(), os.getloadavg()[0]
    try:
        with private_directory() as folder, BenchmarkEnvironment(folder) as environment:
            from benchmarks.measures import ALL, growth as growing

            about = {
                "quick": quick,
                "rounds": rounds,
                "receiver": environment.fast.name,
                "load_before": round(load, 1),
                "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
            }
            print(f"bench: {about}", flush=True)
            points = growing.measure(environment, size, rounds) if growth else []
            for number in range(1, 0 if growth else rounds + 1):
                for measure in ALL:
                    if measure.KEYS & wanted:
                        at = time.monotonic()
                        measure.measure(environment, size, wanted, results)
                        subject = measure.__name__.rpartition(".")[2]
                        print(f"round {number} of {rounds}: {subject} {time.monotonic() - at:.1f} s", flush=True)
    except (BenchmarkError, WaitTimeoutError) as error:
        print(f"bench: worth nothing: {error}")
        return 2
    about["seconds"] = round(time.monotonic() - began)
    print(growing.table(points) if growth else results.table())
    if path := os.environ.get("BENCH_JSON"):
        Path(path).write_text(growing.as_json(points, about) if growth else results.as_json(about))
    print(f"bench: {about['seconds']} s; deliveries counted by {about['receiver']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
