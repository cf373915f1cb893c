"""App configuration of the project."""

from __future__ import annotations

from django.apps import AppConfig

from smartmate import telemetry


class SmartMateConfig(AppConfig):
    """Starts telemetry in every process: web, workers, beat and commands."""

    name = "smartmate"

    def ready(self) -> None:
        """Start telemetry before the first request or task."""
        telemetry.start()
