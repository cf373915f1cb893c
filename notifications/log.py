"""JSON log lines without secrets."""

from __future__ import annotations

import logging
import re

from pythonjsonlogger.json import JsonFormatter as BaseFormatter

_SECRETS = (
    (re.compile(r"(/trigger-webhook/|/hook/|/webhook/event/)[^/\s\"'?&]+"), r"\1********"),
    (re.compile(r"(?i)(bearer )[^\s\"']+"), r"\1********"),
    (re.compile(r"(\w+://[^/\s:@]*:)[^/\s@]+@"), r"\1********@"),
)


def black_out(text: str) -> str:
    """Return text with webhook keys, bearer tokens and passwords in addresses replaced."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class NoSecrets(logging.Filter):
    """The last line of defence: blacks out what no code of ours should have put into a message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record in place and let it pass."""
        record.msg, record.args = black_out(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = black_out(record.exc_text)
        for name, value in vars(record).items():
            if isinstance(value, str) and name not in ("msg", "exc_text"):
                setattr(record, name, black_out(value))
        return True


class JsonFormatter(BaseFormatter):
    """One JSON object a line: time, level, logger, message and every extra field."""

    def __init__(self) -> None:
        super().__init__(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            json_ensure_ascii=False,
        )

    def formatException(self, ei: object) -> str:  # noqa: N802  the base class names it
        """Return the traceback without secrets, whichever handler it goes to."""
        return black_out(super().formatException(ei))  # type: ignore[arg-type]
