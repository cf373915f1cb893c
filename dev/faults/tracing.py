"""Lets the receiver see which process a request came from, so that `make chaos` can tell whose death explains what."""

from __future__ import annotations

import os
from typing import Any

from notifications.providers.http.client import HttpPoster

HEADER = "X-Sender"


def install() -> None:
    """Add a header with the process id to every request."""
    post = HttpPoster.post

    def traced(self: HttpPoster, url: str, body: bytes, headers: dict[str, str], *args: Any, **kwargs: Any) -> Any:
        return post(self, url, body, headers | {HEADER: str(os.getpid())}, *args, **kwargs)

    HttpPoster.post = traced  # type: ignore[method-assign]
