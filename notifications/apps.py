"""App configuration."""

from __future__ import annotations

from contextlib import suppress

from django.apps import AppConfig
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _


class NotificationsConfig(AppConfig):
    """The app `notifications`."""

    name = "notifications"
    verbose_name = _("Notifications")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and connect the endpoint of EVENTS_ENDPOINT to the signals."""
        from notifications import checks, project_checks  # noqa: F401  the import registers them
        from notifications.ingest.signal_webhooks import connect_events_endpoint

        with suppress(ImproperlyConfigured):  # the checks report it
            connect_events_endpoint()
