"""The Celery app."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "smartmate.settings")
# Celery runs the checks in each worker and heeds nothing they find; all of admin and API would be loaded for it.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")

app = Celery("smartmate")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
