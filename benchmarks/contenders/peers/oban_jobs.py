"""Oban for Python: 50 jobs at a time in each process. It keeps each job's row, as its result, and no attempts."""

from __future__ import annotations

import asyncio
import os
import sys

import uvloop
from oban import Oban, job
from oban.schema import install

from benchmarks.contenders.peers.posting import REQUEST, Poster

QUEUE = {"limit": 50, "debounce_interval": 0.001}
"""With the default interval of 5 ms both processes wait most of the time."""
CHUNK = 1000
"""Jobs of one INSERT."""
_posters: list[Poster] = []


@job(queue="bench", max_attempts=5)
async def send(body: str) -> None:
    """Post."""
    await _posters[0].post(body.encode())


async def fill(count: int) -> None:
    """Create the tables and queue so many jobs."""
    pool = await Oban.create_pool(os.environ["DATABASE_URL"])
    await install(pool)
    oban = Oban(pool=pool)
    for _ in range(0, count, CHUNK):
        await oban.enqueue_many(send.new(body=REQUEST["body"]) for _ in range(CHUNK))
    await pool.close()


async def work() -> None:
    """Work until killed."""
    _posters.append(Poster())
    pool = await Oban.create_pool(os.environ["DATABASE_URL"])
    async with Oban(pool=pool, queues={"bench": QUEUE}):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(fill(int(sys.argv[1])) if sys.argv[1:] else work())
