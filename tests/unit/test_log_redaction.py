"""JSON log lines without secrets."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from notifications.security.log_redaction import JsonFormatter, NoSecrets, redact_text

KEY = "canary-7d9f"
SECRETS = [
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
PLAIN = [
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


@pytest.fixture
def lines() -> io.StringIO:
    """What the handler of the project wrote."""
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


def written(lines: io.StringIO) -> dict[str, Any]:
    """Return the one line as JSON."""
    [line] = lines.getvalue().splitlines()
    fields: dict[str, Any] = json.loads(line)
    return fields


@pytest.mark.parametrize("text", SECRETS)
class TestNoSecretGetsOut:
    def test_in_the_message(self, logger: logging.Logger, lines: io.StringIO, text: str) -> None:
        logger.info(text)

        assert KEY not in lines.getvalue()
        assert "********" in written(lines)["message"]

    def test_in_an_argument(self, logger: logging.Logger, lines: io.StringIO, text: str) -> None:
        logger.info("sending to %s and then %s", text, 7)

        assert KEY not in lines.getvalue()
        assert written(lines)["message"].endswith(" and then 7")

    def test_in_an_argument_that_is_no_text(self, logger: logging.Logger, lines: io.StringIO, text: str) -> None:
        logger.info("sending %r", {"to": [text]})

        assert KEY not in lines.getvalue()

    def test_in_an_extra_field(self, logger: logging.Logger, lines: io.StringIO, text: str) -> None:
        logger.info("sending", extra={"to": text})

        assert KEY not in lines.getvalue()
        assert "********" in written(lines)["to"]

    def test_deep_in_an_extra_field(self, logger: logging.Logger, lines: io.StringIO, text: str) -> None:
        logger.info("sending", extra={"request": {"to": [text]}})

        assert KEY not in lines.getvalue()
        assert "********" in lines.getvalue()

    def test_in_a_traceback(self, logger: logging.Logger, lines: io.StringIO, text: str) -> None:
        try:
            try:
                raise KeyError(text)
            except KeyError as error:
                raise RuntimeError(text) from error
        except RuntimeError:
            logger.exception("failed")

        assert KEY not in lines.getvalue()
        assert "Traceback" in lines.getvalue()

    def test_with_another_handlers_formatter(self, text: str) -> None:
        record = logging.LogRecord("x", logging.INFO, __file__, 1, text, None, None)
        NoSecrets().filter(record)

        assert KEY not in logging.Formatter().format(record)

    def test_with_another_handlers_formatter_in_a_traceback(self, text: str) -> None:
        error = RuntimeError(text)
        record = logging.LogRecord("x", logging.INFO, __file__, 1, "x", None, (type(error), error, None))
        NoSecrets().filter(record)

        assert KEY not in logging.Formatter().format(record)


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "://:",
        "a://a:",
        "a://:b@",
        "bearer ",
        "/hook/",
        "webhook_url",
        "bearer_token=",
        "webhook_url\\\\",
        "\\",
        " ",
    ],
)
def test_a_text_of_any_length_takes_time_in_proportion(part: str) -> None:
    began = time.process_time()

    redact_text(part * (1_000_000 // len(part)))

    assert time.process_time() - began < 5


class TestJsonFormatter:
    def test_a_line_is_one_object_with_every_fact(self, logger: logging.Logger, lines: io.StringIO) -> None:
        logger.warning("会议 %s", "改期\n下一行", extra={"event": "x.y", "record_id": 7, "sent": True})

        fields = written(lines)
        assert (fields["level"], fields["logger"], fields["message"]) == ("WARNING", "tests.log", "会议 改期\n下一行")
        assert (fields["event"], fields["record_id"], fields["sent"]) == ("x.y", 7, True)
        assert fields["time"]
        assert "会议" in lines.getvalue()

    def test_a_line_with_the_wrong_arguments_does_not_fail_the_caller(
        self, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging, "raiseExceptions", False)

        logger.info("record %d", "seven")
