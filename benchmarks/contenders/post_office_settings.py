"""The project's settings with django-post_office in its best setting."""

from __future__ import annotations

from smartmate.settings import *  # noqa: F403
from smartmate.settings import INSTALLED_APPS as _apps

INSTALLED_APPS = [*_apps, "post_office"]
EMAIL_BACKEND = "benchmarks.contenders.post_office_backend.PostingBackend"
POST_OFFICE = {"BATCH_SIZE": 1000}
