"""The answers of the sandbox, written as words: ``ok``, ``code:19001``, ``slow:1.5``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

# Messages that Feishu sends with its error codes, as observed; the HTTP status is 200.
CODE_MESSAGES = {
    0: "success",
    2200: "internal error",
    9499: "Bad Request",
    11232: "frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]",
    11246: "parse card json err",
    19001: "param invalid: incoming webhook access token invalid",
    19002: "params error, msg_type need",
    19007: "Bot Not Enabled",
    19021: "sign match fail or timestamp is not within one hour from current time",
    19022: "Ip Not Allowed",
    19024: "Key Words Not Found",
    230001: "invalid parameter",
    230020: "frequency limit",
    230049: "message is being sent",
    99991400: "request trigger frequency limit",
    800004509: "webhook trigger workflow is disabled",
    800005646: "self loop",
    800005647: "request body too large",
    800005649: "invalid bearer token",
    800005650: "ip not in allow list",
    800005652: "too frequent",
    800006003: "request body is not json",
}
PLAIN_WORDS = ("ok", "hold", "reset", "garbage", "huge", "drip", "drip-body", "redirect", "empty", "echo")
_ACCEPTING_KINDS = {"ok", "hold", "garbage", "huge", "empty"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedAnswer:
    """One answer of a script."""

    word: str
    kind: str
    number: float = 0.0
    """An error code, an HTTP status, or seconds, depending on `kind`."""
    message: str = ""
    """The message of an error code."""
    wait: float = 0.0
    """Seconds before the answer is sent."""

    @classmethod
    def parse(cls, word: str) -> Self:
        """Return the answer that a word stands for.

        Args:
            word: One of PLAIN_WORDS, or ``code:N``, ``code:N:message``, ``status:N``, ``rate-limit:SECONDS``,
                ``slow:SECONDS``, ``slow:SECONDS:WORD``, or ``echo:N`` (a code, with the key and the token of the
                request in every part of the response).

        Raises:
            ValueError: The word is unknown.
        """
        kind, _, rest = word.partition(":")
        try:
            match kind:
                case "code":
                    number, _, message = rest.partition(":")
                    message = message or CODE_MESSAGES.get(int(number), "unknown error")
                    return cls(word=word, kind=kind, number=int(number), message=message)
                case "echo" if rest:
                    return cls(word=word, kind=kind, number=int(rest))
                case "status" if 200 <= int(rest) <= 599:
                    return cls(word=word, kind=kind, number=int(rest))
                case "rate-limit":
                    return cls(word=word, kind=kind, number=int(rest))
                case "slow":
                    seconds, _, then = rest.partition(":")
                    if 0 <= float(seconds) < float("inf"):
                        return replace(cls.parse(then or "ok"), word=word, wait=float(seconds))
                case _ if word in PLAIN_WORDS:
                    return cls(word=word, kind=word)
        except ValueError:
            pass
        raise ValueError(f"no such answer: {word!r}")

    @property
    def accepted(self) -> bool:
        """True if a receiver that sends this answer has accepted the message."""
        match self.kind:
            case "code" | "echo":
                return self.number == 0
            case "status":
                return 200 <= self.number <= 299
            case kind:
                return kind in _ACCEPTING_KINDS


REPEATED = ScriptedAnswer(word="repeated", kind="repeated")
"""The answer to a repeated request that the receiver detects: a success, but the message is not accepted again."""
