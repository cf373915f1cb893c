"""A local webhook receiver that imitates Feishu and Standard Webhooks, for tests and demos.

Use ``with Sandbox() as sandbox`` in a test, or run ``python -m notifications.testing.sandbox`` as a separate process.
"""

from __future__ import annotations

from notifications._moved import forward
from notifications.testing.sandbox.answers import ScriptedAnswer
from notifications.testing.sandbox.client import SandboxClient
from notifications.testing.sandbox.journal import Delivery, read_journal
from notifications.testing.sandbox.server import Sandbox

__all__ = ["Delivery", "Sandbox", "SandboxClient", "ScriptedAnswer", "read_journal"]

__getattr__ = forward(__name__, "notifications.testing.sandbox.answers", renamed={"Answer": "ScriptedAnswer"})
