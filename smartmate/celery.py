"""The Celery app."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "smartmate.settings")
# Celery would run the checks in each worker, which load admin and API, and ignore their results.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("smartmate")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
