"""The request of every contender, with aiohttp and connections that stay open."""

from __future__ import annotations

import json
import os

import aiohttp

REQUEST = json.loads(os.environ["BENCH_REQUEST"])
"""`url`, `headers`, `body` and the `answer` of a success."""


class Poster:
    """Posts in the running event loop."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(headers=REQUEST["headers"])

    async def post(self, body: bytes) -> None:
        """Post and read the answer. Raises if it was no success."""
        async with self._session.post(REQUEST["url"], data=body) as response:
            answer = await response.read()
        if response.status != 200 or answer.decode() != REQUEST["answer"]:
            raise RuntimeError(f"answer {response.status}")
