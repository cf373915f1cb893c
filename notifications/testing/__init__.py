"""Helpers for the tests of projects that use this app: assertions, deliveries on demand, and a local receiver.

No code of the app imports this package. Importing it requires neither pytest nor a configured Django. Two modules
require pytest: `conformance`, the tests for providers of your own, and `plugin`, the fixtures. Load the fixtures with
``pytest_plugins = ["notifications.testing.plugin"]`` in your top conftest.py.
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
