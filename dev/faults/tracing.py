"""Sends the process id with each request, so that `make chaos` knows which killed process explains a duplicate."""

from __future__ import annotations

import dataclasses
import os

from notifications.providers.http.client import HttpPoster
from notifications.providers.http.messages import HttpRequest, Outbound

HEADER = "X-Sender"


def install() -> None:
    """Add a header with the process id to each request."""
    outbound = HttpPoster.outbound

    def outbound_with_process_id(self: HttpPoster, request: HttpRequest) -> Outbound:
        way = outbound(self, request)
        return dataclasses.replace(way, headers=way.headers | {HEADER: str(os.getpid())})

    HttpPoster.outbound = outbound_with_process_id  # type: ignore[method-assign]
