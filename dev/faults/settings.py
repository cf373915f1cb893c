"""The project's settings and the app that installs faults."""

from __future__ import annotations

from smartmate.settings import *  # noqa: F403
from smartmate.settings import INSTALLED_APPS as _APPS

INSTALLED_APPS = [*_APPS, "dev.faults.apps.FaultsConfig"]
ROOT_URLCONF = "dev.faults.urls"
