"""Sends the process id with each request, so that `make chaos` knows which killed process explains a duplicate."""

from __future__ import annotations

import os
from typing import Any

from notifications.providers.http.client import HttpPoster

HEADER = "X-Sender"


def install() -> None:
    """Add a header with the process id to each request."""
    post = HttpPoster.post

    def post_with_process_id(
        self: HttpPoster, url: str, body: bytes, headers: dict[str, str], *args: Any, **kwargs: Any
    ) -> Any:
        return post(self, url, body, headers | {HEADER: str(os.getpid())}, *args, **kwargs)

    HttpPoster.post = post_with_process_id  # type: ignore[method-assign]
