"""What a request costs its caller while Redis is away: refusing connections, and accepting them in silence.

First calls are as a process's first to Redis; added is their 99th percentile less the median of first calls with Redis
there. Later ones follow within REDIS_SILENCE; added is their 99th percentile less that of later calls with Redis there,
since a commit alone is slow now and then. The worse of the two kinds of away counts.
"""

from __future__ import annotations

import json

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import LATER, Results, percentile
from benchmarks.size import Size
from dev.ports import free_port
from dev.proxy import Proxy

FIRST = "redis_down_request_ms"
KEYS = frozenset({FIRST})


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Time calls with Redis there, refusing, and silent."""
    with Proxy(environment.valkey.port) as proxy:
        proxy.mode = "silent"
        urls = {
            "up": environment.valkey.url,
            "refusing": f"redis://127.0.0.1:{free_port()}/0",
            "silent": proxy.url(environment.valkey.url),
        }
        times = {name: _times(environment, url, size.redis_calls) for name, url in urls.items()}
    for key, calls, usual in ((FIRST, "first", 50), (LATER.name, "later", 99)):
        there = percentile(times["up"][calls], usual)
        added = {name: percentile(times[name][calls], 99) - there for name in ("refusing", "silent")}
        results.add(key, max(added.values()), **added, **{f"p{usual} with Redis": there})


def _times(environment: BenchmarkEnvironment, url: str, count: int) -> dict[str, list[float]]:
    environment.clear()
    times: dict[str, list[float]] = json.loads(
        environment.program("benchmarks.programs.requesting", REDIS_URL=url, BENCH_COUNT=str(count))
    )
    return times
