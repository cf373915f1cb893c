"""Installs the faults that the environment names when Django starts."""

from __future__ import annotations

import os

from django.apps import AppConfig


class FaultsConfig(AppConfig):
    """Reads FAULTS (failpoints.py), CONTROL (controls.py) and FAULT_SIGNALS (signals.py)."""

    name = "dev.faults"
    label = "faults"

    def ready(self) -> None:
        """Wrap the service's functions."""
        from dev.faults import clock, controls, failpoints, signals, tracing

        clock.install()
        tracing.install()
        failpoints.install(os.environ.get("FAULTS", ""))
        controls.install(os.environ.get("CONTROL", ""))
        signals.install(os.environ.get("FAULT_SIGNALS", ""))
