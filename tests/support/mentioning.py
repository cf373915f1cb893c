"""A provider in memory whose channel can mention somebody."""

from __future__ import annotations

from notifications.providers.memory import MemoryProvider


class MentioningMemoryProvider(MemoryProvider):
    """Sends nothing, and takes mentions."""

    can_mention = True
