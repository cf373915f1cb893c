"""A stand-in for Feishu on this machine, for tests and demos.

``with Sandbox() as feishu`` in a test, ``python -m notifications.testing.sandbox`` as a process of its own.
"""

from __future__ import annotations

from notifications.testing.sandbox.answers import ScriptedAnswer
from notifications.testing.sandbox.client import SandboxClient
from notifications.testing.sandbox.journal import Delivery, read_journal
from notifications.testing.sandbox.server import Sandbox

__all__ = ["Delivery", "Sandbox", "SandboxClient", "ScriptedAnswer", "read_journal"]
