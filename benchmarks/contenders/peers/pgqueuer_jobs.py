"""pgqueuer: batches of 100 in each process, with asyncpg. It deletes a job that is done and keeps a log row of it."""

from __future__ import annotations

import os
import sys

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.contenders.peers.posting import REQUEST, Poster

BATCH = 100
CHUNK = 1000
"""Jobs of one INSERT."""


async def fill(count: int) -> None:
    """Create the tables and queue so many jobs."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queries = Queries.from_asyncpg_connection(connection)
    await queries.install()
    body = REQUEST["body"].encode()
    for _ in range(0, count, CHUNK):
        await queries.enqueue(["send"] * CHUNK, [body] * CHUNK, [0] * CHUNK)
    await connection.close()


async def work() -> None:
    """Work until killed."""
    queue = PgQueuer.from_asyncpg_connection(await asyncpg.connect(os.environ["DATABASE_URL"]))
    poster = Poster()

    @queue.entrypoint("send")
    async def send(job: Job) -> None:
        await poster.post(job.payload or b"")

    await queue.run(batch_size=BATCH)


if __name__ == "__main__":
    uvloop.run(fill(int(sys.argv[1])) if sys.argv[1:] else work())
