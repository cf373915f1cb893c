"""The parts of a general message beside its title, text and link, as a record stores them in `content`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

OPEN_ID, USER_ID, EVERYONE = "open_id", "user_id", "all"
"""Kinds of a mention."""


@dataclass(frozen=True, slots=True)
class Mention:
    """Somebody whom a message in a group mentions. Only this makes a mention: no text does.

    Use `Mention.open_id("ou_...")`, `Mention.user_id("...")` or `Mention.everyone()`. The ids are the vendor's.
    """

    kind: str
    value: str = ""

    @classmethod
    def open_id(cls, value: str) -> Self:
        """Mention the member with this open id."""
        return cls(OPEN_ID, value)

    @classmethod
    def user_id(cls, value: str) -> Self:
        """Mention the member with this user id of the tenant."""
        return cls(USER_ID, value)

    @classmethod
    def everyone(cls) -> Self:
        """Mention all members of the group."""
        return cls(EVERYONE, EVERYONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageContent:
    """What a message of `notify` has beside the columns of its record."""

    action: str = ""
    """Text of the link or button; blank: the text of the provider."""
    html: str = ""
    """The text as HTML, for mails."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Free values of the caller, which webhooks receive."""
    mentions: tuple[Mention, ...] = ()
    language: str = ""
    """Language of the recipient, such as zh-hans; blank: unknown."""

    def as_json(self) -> dict[str, Any]:
        """Return the parts that are not empty as JSON values."""
        values: dict[str, Any] = {"action": self.action, "html": self.html, "data": dict(self.data)}
        values |= {"mentions": [[item.kind, item.value] for item in self.mentions], "language": self.language}
        return {name: value for name, value in values.items() if value}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the content that `as_json` returned these values for.

        Args:
            values: The values.
        """
        known = {name: values[name] for name in ("action", "html", "data", "language") if name in values}
        mentions = tuple(Mention(kind, value) for kind, value in values.get("mentions", ()))
        return cls(mentions=mentions, **known)
