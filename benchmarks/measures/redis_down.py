"""What a request costs its caller while Redis is away: refusing connections, and accepting them in silence.

Added time: the 99th percentile with Redis away less that with Redis there. First calls are a process's first since it
started; later ones follow it, within REDIS_SILENCE. The worse of the two kinds of away counts.
"""

from __future__ import annotations

import json

from benchmarks.figures import LATER, Results, percentile
from benchmarks.size import Size
from benchmarks.stage import Stage
from dev.ports import free_port
from dev.proxy import Proxy

KEYS = frozenset({"redis_down_request_ms"})


def measure(stage: Stage, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Time calls with Redis there, refusing, and silent."""
    with Proxy(stage.valkey.port) as proxy:
        proxy.mode = "silent"
        urls = {
            "up": stage.valkey.url,
            "refusing": f"redis://127.0.0.1:{free_port()}/0",
            "silent": proxy.url(stage.valkey.url),
        }
        p99 = {name: _p99(stage, url, size.redis_calls) for name, url in urls.items()}
    for key, calls in (("redis_down_request_ms", "first"), (LATER.name, "later")):
        added = {name: p99[name][calls] - p99["up"][calls] for name in ("refusing", "silent")}
        results.add(key, max(added.values()), **added, **{"p99 with Redis": p99["up"][calls]})


def _p99(stage: Stage, url: str, count: int) -> dict[str, float]:
    stage.clear()
    times = json.loads(stage.program("benchmarks.programs.requesting", REDIS_URL=url, BENCH_COUNT=str(count)))
    return {calls: percentile(times[calls], 99) for calls in ("first", "later")}
