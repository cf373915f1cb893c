"""The Celery app of another project, which requests notifications by the name of the task."""

from __future__ import annotations

from celery import Celery


def other_app(broker: str) -> Celery:
    """Return such an app. It does not become the current app of this process, which our own code uses.

    Args:
        broker: its address.
    """
    return Celery("other", broker=broker, set_as_current=False)
