"""One endpoint hangs: by how much this delays the messages to other endpoints.

Requests come one by one, 50 a second at random moments, as from a site in normal use: an open loop, far below what the
workers can send. A tenth goes to the endpoint that hangs until the READ_TIMEOUT; that alone keeps 25 of 64 slots busy
(50/s x 10 % x 5 s), until each of its five users' channels has failed five times and is only probed. Then the same is
measured with that tenth sent to a healthy endpoint. Each time is from the commit of a request to the first byte at the
receiver; the tenth itself is not counted. A prepared backlog would measure something else: there each message waits for
all earlier ones, whatever the engine does. QUICK shortens the timeout and the run.
"""

from __future__ import annotations

import random
import time

from benchmarks.environment import BenchmarkEnvironment
from benchmarks.figures import Results, percentile
from benchmarks.requests_made import commit_one
from benchmarks.serving import HANGING, QUICK
from benchmarks.size import Size
from benchmarks.watching import BenchmarkError
from dev.waiting import wait_until

KEYS = frozenset({"isolation_p95"})
RATE = 50.0
HANGING_EVERY = 10


def measure(environment: BenchmarkEnvironment, size: Size, wanted: frozenset[str], results: Results) -> None:
    """Run without, then with a hanging endpoint."""
    env = {
        "NOTIFICATIONS_READ_TIMEOUT": str(size.isolation_timeout),
        "NOTIFICATIONS_TOTAL_TIMEOUT": str(2 * size.isolation_timeout),
    }
    delays: dict[str, list[float]] = {}
    unfinished = "SELECT count(*) FROM notification_records WHERE status IN ('pending', 'sending') AND wait_reason = ''"
    environment.clear()
    with environment.engine(env):
        for endpoint in (QUICK, HANGING):
            delays[endpoint] = _run(environment, endpoint, size.isolation_seconds)
            wait_until(lambda: not environment.number(unfinished), "every record was attempted")
    hanging_p95, healthy_p95 = percentile(delays[HANGING], 95), percentile(delays[QUICK], 95)
    results.add(
        "isolation_p95",
        hanging_p95 / healthy_p95,
        **{
            "ms with": hanging_p95,
            "ms without": healthy_p95,
            "p50 with": percentile(delays[HANGING], 50),
            "p50 without": percentile(delays[QUICK], 50),
        },
    )
    results.notes["isolation_p95"] = f"open loop of {RATE:g}/s, timeout {size.isolation_timeout:g} s"


def _run(environment: BenchmarkEnvironment, endpoint: str, seconds: float) -> list[float]:
    """Return the milliseconds of each message to another endpoint."""
    choice = random.Random(1)  # noqa: S311  the same moments each time
    moments = sorted(choice.uniform(0, seconds) for _ in range(int(seconds * RATE)))
    environment.asyncio.arrivals()
    before, committed, healthy_keys = environment.asyncio.hits(), {}, set()
    for number in range(5):  # all processes are ready
        commit_one(f"{endpoint}:warm:{number}", environment.users[QUICK][0])
        time.sleep(0.1)
    began = time.monotonic()
    for number, moment in enumerate(moments):
        key, chosen = f"{endpoint}:{number}", endpoint if number % HANGING_EVERY == 0 else QUICK
        if number % HANGING_EVERY:
            healthy_keys.add(key)
        time.sleep(max(0.0, began + moment - time.monotonic()))
        committed[key] = commit_one(key, environment.users[chosen][number % 5])
    arrivals: dict[str, int] = {}

    def all_there() -> bool:
        arrivals.update({key: at for at, key in environment.asyncio.arrivals()})
        return healthy_keys <= arrivals.keys()

    wait_until(all_there, "all but the hanging ones have arrived")
    # Fewer of the hanging messages arrive: after five failures their endpoint is only probed.
    if (hits := environment.asyncio.hits() - before) > len(moments) + 5:
        raise BenchmarkError(f"isolation: {len(moments) + 5} deliveries were to arrive, {hits} did")
    return [(arrivals[key] - committed[key]) / 1e6 for key in healthy_keys]
