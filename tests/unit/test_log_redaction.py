"""Secrets are removed from log records, and JSON lines have every field."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from notifications.security.log_redaction import JsonFormatter, NoSecrets, redact_text

KEY = "canary-7d9f"
TEXTS_WITH_SECRETS = [
    f"https://www.feishu.cn/flow/api/trigger-webhook/{KEY}",
    f"https://open.feishu.cn/open-apis/bot/v2/hook/{KEY}?x=1",
    f"https://open.larksuite.com/open-apis/bot/v2/hook/{KEY}/",
    f"HTTPConnectionPool(host='x', port=80): url: /open-apis/bot/v2/hook/{KEY} (Caused by ...)",
    f'POST "/webhook/event/{KEY}" 200',
    f"Authorization: Bearer {KEY}",
    f"{{'authorization': 'bearer {KEY}'}}",
    f"redis://:{KEY}@127.0.0.1:6379/0",
    f"postgres://smartmate:{KEY}@db.internal/smartmate",
    f"redis://:p@{KEY}@127.0.0.1:6379/0",
    f"redis://:{KEY}@s@127.0.0.1:6379/0",
    f"redis://:p/{KEY}@127.0.0.1:6379/0",
    f"redis://:12/{KEY}@127.0.0.1:6379/0",
    f"postgres://user@tenant:{KEY}@db.internal/smartmate",
    f'{{"webhook_url": "{KEY}", "enabled": true}}',
    f"{{'bearer_token': '{KEY}'}}",
    f"new_bearer_token={KEY}&enabled=on",
    json.dumps(json.dumps({"bearer_token": KEY})),
]
TEXTS_WITHOUT_SECRETS = [
    "delivery.attempted record=7 status=sent",
    "https://app.example.com/assistant/c-1",
    "redis://127.0.0.1:6379/0",
    "http://127.0.0.1:9000/a b@example.com",
    "http://127.0.0.1:9000/@b",
    "http://[::1]:9000/@b",
    '["http://db.internal:80", "a@example.com"]',
    '{"webhook_url": null, "bearer_token": ""}',
    "the bearer",
    "/hook/",
    "16:00 改到 17:00 a@example.com",
]
SLOW_CANDIDATES = [
    *("a", "://:", "a://a:", "a://:b@", "bearer ", "/hook/", "webhook_url", "bearer_token=", "webhook_url\\\\"),
    *("\\", " "),
]
"""Texts that begin a match. Repeated, they would make a careless pattern slow."""


@pytest.fixture
def lines() -> io.StringIO:
    """The output of the handler."""
    return io.StringIO()


@pytest.fixture
def logger(lines: io.StringIO) -> Iterator[logging.Logger]:
    """A logger with a handler as in settings.LOGGING."""
    handler = logging.StreamHandler(lines)
    handler.addFilter(NoSecrets())
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tests.log")
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.removeHandler(handler)


@pytest.fixture
def log_each(lines: io.StringIO) -> Callable[[Callable[[str], object]], dict[str, str]]:
    """Return a function that logs every text with a secret and returns the lines by text."""

    def log_each(log: Callable[[str], object]) -> dict[str, str]:
        written: dict[str, str] = {}
        for text in TEXTS_WITH_SECRETS:
            lines.seek(0)
            lines.truncate()
            log(text)
            written[text] = lines.getvalue()
        return written

    return log_each


LogEach = Callable[[Callable[[str], object]], dict[str, str]]


def parse_line(line: str) -> dict[str, Any]:
    """Return the only line as JSON."""
    [only] = line.splitlines()
    fields: dict[str, Any] = json.loads(only)
    return fields


def assert_redacted(written: dict[str, str]) -> None:
    """Assert that no line has the key, and that each line shows that something was removed."""
    assert [text for text, line in written.items() if KEY in line] == []
    assert [text for text, line in written.items() if "********" not in line] == []


class TestSecretsAreRemoved:
    def test_from_the_message(self, logger: logging.Logger, log_each: LogEach) -> None:
        written = log_each(logger.info)

        assert_redacted(written)
        assert all("********" in parse_line(line)["message"] for line in written.values())

    def test_from_an_argument(self, logger: logging.Logger, log_each: LogEach) -> None:
        written = log_each(lambda text: logger.info("sending to %s and then %s", text, 7))

        assert_redacted(written)
        assert all(parse_line(line)["message"].endswith(" and then 7") for line in written.values())

    def test_from_an_argument_that_is_not_a_text(self, logger: logging.Logger, log_each: LogEach) -> None:
        assert_redacted(log_each(lambda text: logger.info("sending %r", {"to": [text]})))

    def test_from_an_extra_field(self, logger: logging.Logger, log_each: LogEach) -> None:
        written = log_each(lambda text: logger.info("sending", extra={"to": text}))

        assert_redacted(written)
        assert all("********" in parse_line(line)["to"] for line in written.values())

    def test_from_a_nested_extra_field(self, logger: logging.Logger, log_each: LogEach) -> None:
        assert_redacted(log_each(lambda text: logger.info("sending", extra={"request": {"to": [text]}})))

    def test_from_a_traceback(self, logger: logging.Logger, log_each: LogEach) -> None:
        def log_exception(text: str) -> None:
            try:
                try:
                    raise KeyError(text)
                except KeyError as error:
                    raise RuntimeError(text) from error
            except RuntimeError:
                logger.exception("failed")

        written = log_each(log_exception)

        assert_redacted(written)
        assert all("Traceback" in line for line in written.values())

    def test_for_a_handler_with_another_formatter(self) -> None:
        for text in TEXTS_WITH_SECRETS:
            error = RuntimeError(text)
            message = logging.LogRecord("x", logging.INFO, __file__, 1, text, None, None)
            traceback = logging.LogRecord("x", logging.INFO, __file__, 1, "x", None, (type(error), error, None))
            for record in (message, traceback):
                NoSecrets().filter(record)
                assert KEY not in logging.Formatter().format(record), text


def test_texts_without_secrets_are_not_changed() -> None:
    assert [redact_text(text) for text in TEXTS_WITHOUT_SECRETS] == TEXTS_WITHOUT_SECRETS


def test_the_time_is_linear_in_the_length_of_the_text() -> None:
    for part in SLOW_CANDIDATES:
        started_at = time.process_time()

        redact_text(part * (1_000_000 // len(part)))

        assert time.process_time() - started_at < 5, part


class TestJsonFormatter:
    def test_a_line_is_one_object_with_every_field(self, logger: logging.Logger, lines: io.StringIO) -> None:
        logger.warning("会议 %s", "改期\n下一行", extra={"event": "x.y", "record_id": 7, "sent": True})

        fields = parse_line(lines.getvalue())
        assert (fields["level"], fields["logger"], fields["message"]) == ("WARNING", "tests.log", "会议 改期\n下一行")
        assert (fields["event"], fields["record_id"], fields["sent"]) == ("x.y", 7, True)
        assert fields["time"]
        assert "会议" in lines.getvalue()

    def test_wrong_arguments_do_not_fail_the_caller(
        self, logger: logging.Logger, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging, "raiseExceptions", False)

        logger.info("record %d", "seven")

        assert parse_line(lines.getvalue())["message"] == "record %d"
