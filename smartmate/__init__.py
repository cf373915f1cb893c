"""The project: one settings file, the environment decides."""

from smartmate.celery import app as celery_app

__all__ = ["celery_app"]
