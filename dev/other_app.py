"""The Celery app of another project, which asks for notifications by the name of the task alone."""

from __future__ import annotations

from celery import Celery


def other_app(broker: str) -> Celery:
    """Return such an app; the current app of this process, by which our own code sends, stays what it is.

    Args:
        broker: its address.
    """
    return Celery("other", broker=broker, set_as_current=False)
