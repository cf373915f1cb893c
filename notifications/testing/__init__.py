"""For tests of projects that use this app: what was requested, deliveries on demand, nothing that leaves the machine.

With pytest, name the fixtures in your conftest.py: ``pytest_plugins = ["notifications.testing.plugin"]``.
Importing this package needs neither pytest nor a Django that is set up.
"""

from __future__ import annotations

from notifications.testing.assertions import assert_not_notified, assert_notified
from notifications.testing.delivery import deliver_notifications
from notifications.testing.isolation import using_memory, using_sandbox
from notifications.testing.sandbox.server import Sandbox

__all__ = [
    "Sandbox",
    "assert_not_notified",
    "assert_notified",
    "deliver_notifications",
    "using_memory",
    "using_sandbox",
]
