"""The project's settings with django-post_office in its best setting."""

from __future__ import annotations

from smartmate import settings as project
from smartmate.settings import *  # noqa: F403

INSTALLED_APPS = [*project.INSTALLED_APPS, "post_office"]
EMAIL_BACKEND = "benchmarks.contenders.post_office_backend.PostingBackend"
POST_OFFICE = {"BATCH_SIZE": 1000}
