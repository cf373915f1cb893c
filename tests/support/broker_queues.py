"""What waits in the broker."""

from __future__ import annotations

from smartmate.celery import app


def purge_queue(queue: str) -> int:
    """Empty a broker queue and return the number of messages that were in it."""
    with app.connection_for_read() as connection:
        return int(connection.default_channel._purge(queue))  # type: ignore[attr-defined]
