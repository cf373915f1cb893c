"""JSON log lines without secrets."""

from __future__ import annotations

import logging
import re

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter as BaseFormatter

# Each with words one of which stands, in lower case, in every text it could change: looking for them costs next to
# nothing, and few lines have one. A backslash ends a secret too, so that a line of JSON keeps its escapes whole.
_SECRETS = (
    (("hook/",), re.compile(r"(/trigger-webhook/|/hook/|/webhook/event/)[^/\s\"'?&\\]+"), r"\1********"),
    (("whsec_",), re.compile(r"whsec_[\w+/=-]+"), "whsec_********"),
    (("bearer ",), re.compile(r"(?i)(bearer )[^\s\"'\\]+"), r"\1********"),
    (
        ("webhook_url", "bearer_token"),
        re.compile(r"(?i)((?:webhook_url|bearer_token)(?:=|\\*[\"']?\s*[:=]\s*\\*[\"']))[^\s\"'&\\]+"),
        r"\1********",
    ),
    # A password may hold anything, an @ or / that should have been escaped too: up to the last @, but a port is none.
    # Bounded, and led by what is rare: whatever length and text a stranger sends, this takes time in proportion.
    (
        ("://",),
        re.compile(r"(\w://(?::|[^/\s:\[]{1,255}:(?!\d+[/?#])))[^\s@]{1,512}@(?:[^\s\"'@]{0,512}@)*"),
        r"\1********@",
    ),
)


def redact_text(text: str) -> str:
    """Return text with webhook keys, bearer tokens and passwords in addresses replaced."""
    lower = text.lower()
    for words, pattern, replacement in _SECRETS:
        if any(word in lower for word in words):
            text = pattern.sub(replacement, text)
    return text


class NoSecrets(logging.Filter):
    """The last line of defence, for any handler: blacks out what no code of ours should have put into a message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite message and traceback in place and let the record pass."""
        try:
            record.msg, record.args = redact_text(record.getMessage()), None
        except (TypeError, ValueError):  # arguments that do not fit: a line without them beats a failing caller
            record.msg, record.args = redact_text(str(record.msg)), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_text = redact_text(record.exc_text) if record.exc_text else None
        return True


class JsonFormatter(BaseFormatter):
    """One JSON object a line: time, level, logger, message and every extra field."""

    def __init__(self) -> None:
        super().__init__(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            json_ensure_ascii=False,
            reserved_attrs=[*RESERVED_ATTRS, "data"],  # Celery's: the arguments of a task that failed, whole messages
        )

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; extra fields are blacked out here, however deep the secret lies."""
        return redact_text(super().format(record))
