"""Removes secrets from log records, and formats records as JSON lines."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

import orjson
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter as BaseFormatter

# (words, pattern, replacement). Every text that the pattern can match contains one of the words in lower case.
# Searching for words is much cheaper than the pattern, and few lines contain one. A backslash ends a secret, so that
# the escape sequences of a JSON line stay complete.
_RULES = (
    (("hook/",), re.compile(r"(/trigger-webhook/|/hook/|/webhook/event/)[^/\s\"'?&\\]+"), r"\1********"),
    (("whsec_",), re.compile(r"whsec_[\w+/=-]+"), "whsec_********"),
    (("bearer ",), re.compile(r"(?i)(bearer )[^\s\"'\\]+"), r"\1********"),
    (
        ("webhook_url", "bearer_token"),
        re.compile(r"(?i)((?:webhook_url|bearer_token)(?:=|\\*[\"']?\s*[:=]\s*\\*[\"']))[^\s\"'&\\]+"),
        r"\1********",
    ),
    # Passwords in URLs. A password may contain an unescaped @ or /, so the match extends to the last @. A port number
    # is not a password. The repetitions are bounded and the pattern starts with rare characters, so that the time is
    # linear for any input.
    (
        ("://",),
        re.compile(r"(\w://(?::|[^/\s:\[]{1,255}:(?!\d+[/?#])))[^\s@]{1,512}@(?:[^\s\"'@]{0,512}@)*"),
        r"\1********@",
    ),
)

_RULES_BY_MARKER = [(marker, pattern, text) for markers, pattern, text in _RULES for marker in markers]


def redact_text(text: str) -> str:
    """Return the text with webhook keys, bearer tokens, signing secrets and passwords in URLs replaced by asterisks."""
    lower = text.lower()
    for marker, pattern, replacement in _RULES_BY_MARKER:
        if marker in lower:
            text = pattern.sub(replacement, text)
    return text


class NoSecrets(logging.Filter):
    """Logging filter for any handler that removes secrets from messages and tracebacks.

    It is the last defence: the code of this app logs no secrets, but libraries may.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the message and the traceback of the record in place, and return True."""
        try:
            record.msg, record.args = redact_text(record.getMessage()), None
        except (TypeError, ValueError):  # wrong arguments: log the line without them instead of failing the caller
            record.msg, record.args = redact_text(str(record.msg)), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_text = redact_text(record.exc_text) if record.exc_text else None
        return True


_NO_EXTRA_FIELDS = frozenset([*RESERVED_ATTRS, "data"])  # Celery logs the arguments of a failed task as `data`


@lru_cache(maxsize=1000)
def _encode_name(name: str) -> str:
    return orjson.dumps(name).decode()


class JsonFormatter(BaseFormatter):
    """Formats a record as one line of JSON: time, level, logger, message and every extra field, without secrets."""

    def __init__(self) -> None:
        super().__init__(
            "{asctime}{levelname}{name}{message}",
            style="{",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            json_ensure_ascii=False,
            reserved_attrs=sorted(_NO_EXTRA_FIELDS),
        )

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the fields as JSON, with the blanks of the standard library: people search for `"event": "..."`."""
        try:
            fields = [f"{_encode_name(name)}: {orjson.dumps(log_data[name]).decode()}" for name in log_data]
            return f"{{{', '.join(fields)}}}"
        except TypeError:  # an object, or a number of more than 64 bits
            return str(super().jsonify_log_record(log_data))

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Secrets in extra fields are removed at any depth."""
        if record.exc_info or record.exc_text or record.stack_info or not isinstance(record.msg, str):
            return redact_text(super().format(record))
        # What the library does for such a record, in a third of its time: each attempt has a line.
        fields = {"time": self.formatTime(record), "level": record.levelname, "logger": record.name}
        fields["message"] = record.getMessage()
        fields |= {name: value for name, value in record.__dict__.items() if name not in _NO_EXTRA_FIELDS}
        return redact_text(self.jsonify_log_record(fields))
