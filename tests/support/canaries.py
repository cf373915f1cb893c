"""Canaries: a webhook key and a token that occur nowhere else, and the places to which a secret could leak."""

from __future__ import annotations

import base64
import html
import io
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar
from urllib.parse import unquote

import redis
from django.apps import apps
from django.db import connection
from django.test import Client

from notifications.providers.base import Endpoint, ProviderError, SendRequest, SendResult
from notifications.security.log_redaction import JsonFormatter, NoSecrets

KEY = "canary0KEY7f3a9c2e5b8d4f60a1"
TOKEN = 'sk/canary0TOKEN9d2e5f81+"<&>=%41'
CANARY_PARTS = ("KEY7f3a9c2e5b8d4f60", "TOKEN9d2e5f81")
"""The middle part of each. Masks do not show it, and most escapes do not change it."""
PATH = f"/flow/api/trigger-webhook/{KEY}"
ADDRESS = f"https://www.feishu.cn{PATH}"


def find_canaries(text: object) -> list[str]:
    """Return the canaries in a text: plain, escaped for JSON, HTML or a URL, or in base64."""
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    unescaped = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
    forms = "\n".join((text, unescaped, unquote(text), html.unescape(text))).lower()
    return [part for part in CANARY_PARTS if part.lower() in forms or any(form in text for form in _base64_forms(part))]


def _base64_forms(part: str) -> Iterator[str]:
    """Yield the base64 texts of the part, for each position in a group of three bytes."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + part.encode()).decode()
        yield whole[(0, 2, 3)[before] : len(whole) // 4 * 4 - 4]


class LogCapture:
    """All log records of a block: as the app's loggers created them, and as the project's handler wrote them."""

    def __init__(self) -> None:
        self.raw = io.StringIO()
        self.written = io.StringIO()

    def text(self) -> str:
        """Return both."""
        return self.raw.getvalue() + self.written.getvalue()


class _RawHandler(logging.Handler):
    """Keeps the records of the app's loggers before a filter changes them, with extra fields and tracebacks."""

    def __init__(self, stream: io.StringIO) -> None:
        super().__init__(logging.DEBUG)
        self.stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("notifications"):
            self.stream.write(f"{self.format(record)} {vars(record)}\n")


@contextmanager
def capture_logs() -> Iterator[LogCapture]:
    """Capture the records of all loggers. The root logger has level DEBUG, the others their configured level."""
    logs, root = LogCapture(), logging.getLogger()
    written = logging.StreamHandler(logs.written)
    written.addFilter(NoSecrets())
    written.setFormatter(JsonFormatter())
    handlers, level = root.handlers[:], root.level
    # First in the list, because a filter of another handler changes the record itself.
    root.handlers[:] = [_RawHandler(logs.raw), written, *handlers]
    root.setLevel(logging.DEBUG)
    try:
        yield logs
    finally:
        root.handlers[:], root.level = handlers, level
        root.setLevel(level)


def read_tables() -> Iterator[tuple[str, str]]:
    """Yield every table with the text of all its rows."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" AS t')
            yield f"table {table}", "\n".join(row[0] for row in cursor.fetchall())


def read_redis(client: redis.Redis) -> Iterator[tuple[str, str]]:
    """Yield every key with its value. It does not use DUMP, whose compression would hide a canary."""
    readers: Mapping[bytes, Any] = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    for key in client.scan_iter("*"):
        kind: Any = client.type(key)
        yield f"redis {key!r}", f"{key!r} {readers[kind](key)!r}"


def read_admin_pages(client: Client) -> Iterator[tuple[str, str]]:
    """Yield every admin page of the app's models and of the users."""
    for model in (*apps.get_app_config("notifications").get_models(), apps.get_model("auth", "user")):
        folder = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        urls = [folder, f"{folder}add/"]
        for pk in model._default_manager.values_list("pk", flat=True):
            urls += [f"{folder}{pk}/{page}/" for page in ("change", "history", "delete")]
        for url in urls:
            yield f"page {url}", client.get(url, follow=True).content.decode()
    yield "page /admin/", client.get("/admin/").content.decode()


def find_leaks(logs: LogCapture, client: Client, store: redis.Redis, **texts: object) -> dict[str, list[str]]:
    """Return the canaries by the place in which they are: logs, tables, Redis, admin pages, and the given texts."""
    places = [("logs", logs.text()), *read_tables(), *read_redis(store), *read_admin_pages(client)]
    canaries_by_place = {place: find_canaries(text) for place, text in [*places, *texts.items()]}
    return {place: canaries for place, canaries in canaries_by_place.items() if canaries}


class RaisingProvider:
    """A provider whose exception contains the secrets, as a provider of another project could."""

    channel: ClassVar[str] = "feishu"

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Fail with the address and the token in the exception."""
        raise RuntimeError(_secret_text(endpoint))


class LeakingErrorProvider:
    """A provider whose ProviderError and result contain the secrets. PostgreSQL also refuses the result."""

    channel: ClassVar[str] = "feishu"

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Fail with the address and the token in the text and in the result."""
        text = _secret_text(endpoint)
        result = SendResult(
            outcome="", http_status=2**40, response_payload={text: [text]}, response_excerpt=text, error_message=text
        )
        raise ProviderError(text, result)


def _secret_text(endpoint: Endpoint | None) -> str:
    assert endpoint
    return f"cannot reach {endpoint.webhook_url.reveal()} with {endpoint.bearer_token.reveal()}"
