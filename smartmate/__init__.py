"""The SmartMate project: one settings file, configured by the environment, and the product's own texts and triggers."""

from smartmate.celery import app as celery_app

__all__ = ["celery_app"]
