"""A stand-in for Feishu on this machine: ``with Sandbox() as feishu`` in a test, or ``python -m dev.sandbox``."""

from __future__ import annotations

from dev.sandbox.answers import Answer
from dev.sandbox.client import SandboxClient
from dev.sandbox.journal import Delivery, read_journal
from dev.sandbox.server import Sandbox

__all__ = ["Answer", "Delivery", "Sandbox", "SandboxClient", "read_journal"]
