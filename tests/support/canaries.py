"""Canaries: a webhook key and a token found nowhere else, and the places a secret could get to."""

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
CORES = ("KEY7f3a9c2e5b8d4f60", "TOKEN9d2e5f81")
"""What is looked for: the middle of each, which no masking shows and no escaping but the hardest changes."""
PATH = f"/flow/api/trigger-webhook/{KEY}"
ADDRESS = f"https://www.feishu.cn{PATH}"


def found_in(text: object) -> list[str]:
    """Return which canaries are in a text, plain or escaped for JSON, HTML, an address or as base64."""
    text = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    unescaped = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)
    forms = "\n".join((text, unescaped, unquote(text), html.unescape(text))).lower()
    return [core for core in CORES if core.lower() in forms or any(form in text for form in _base64_forms(core))]


def _base64_forms(core: str) -> Iterator[str]:
    """Yield how the core looks inside base64, by where in a group of three bytes it begins."""
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + core.encode()).decode()
        yield whole[(0, 2, 3)[before] : len(whole) // 4 * 4 - 4]


class Trail:
    """Everything logged while it was watched: as our loggers gave it, and as the project's handler wrote it."""

    def __init__(self) -> None:
        self.raw = io.StringIO()
        self.written = io.StringIO()

    def text(self) -> str:
        """Return all of it."""
        return self.raw.getvalue() + self.written.getvalue()


class _Raw(logging.Handler):
    """Keeps the records of our own loggers before any filter has seen them, extra fields and tracebacks too."""

    def __init__(self, stream: io.StringIO) -> None:
        super().__init__(logging.DEBUG)
        self.stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("notifications"):
            self.stream.write(f"{self.format(record)} {vars(record)}\n")


@contextmanager
def watched_logs() -> Iterator[Trail]:
    """Watch all loggers, the root at DEBUG, the rest as the project configures them."""
    trail, root = Trail(), logging.getLogger()
    written = logging.StreamHandler(trail.written)
    written.addFilter(NoSecrets())
    written.setFormatter(JsonFormatter())
    handlers, level = root.handlers[:], root.level
    # In front: a filter of another handler changes the record itself.
    root.handlers[:] = [_Raw(trail.raw), written, *handlers]
    root.setLevel(logging.DEBUG)
    try:
        yield trail
    finally:
        root.handlers[:], root.level = handlers, level
        root.setLevel(level)


def tables() -> Iterator[tuple[str, str]]:
    """Yield every table with the text of all its rows."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" AS t')
            yield f"table {table}", "\n".join(row[0] for row in cursor.fetchall())


def redis_keys(client: redis.Redis) -> Iterator[tuple[str, str]]:
    """Yield every key with its value. Read by type: DUMP compresses, and would hide what is looked for."""
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


def pages(client: Client) -> Iterator[tuple[str, str]]:
    """Yield every page of the admin about our models, and of the users' that show them."""
    for model in (*apps.get_app_config("notifications").get_models(), apps.get_model("auth", "user")):
        folder = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        urls = [folder, f"{folder}add/"]
        for pk in model._default_manager.values_list("pk", flat=True):
            urls += [f"{folder}{pk}/{page}/" for page in ("change", "history", "delete")]
        for url in urls:
            yield f"page {url}", client.get(url, follow=True).content.decode()
    yield "page /admin/", client.get("/admin/").content.decode()


def leaks(trail: Trail, client: Client, store: redis.Redis, **more: object) -> dict[str, list[str]]:
    """Return where canaries were found, by place. more: texts of one's own."""
    places = [("logs", trail.text()), *tables(), *redis_keys(store), *pages(client)]
    found = {place: found_in(text) for place, text in [*places, *more.items()]}
    return {place: canaries for place, canaries in found.items() if canaries}


class Indiscreet:
    """A provider that raises with all it knows; as somebody's own might."""

    channel: ClassVar[str] = "feishu"

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Fail with the address and the token in the exception."""
        raise RuntimeError(_everything(endpoint))


class Talkative:
    """A provider whose own exception holds the secrets, in a result that PostgreSQL refuses besides."""

    channel: ClassVar[str] = "feishu"

    def send(self, request: SendRequest, endpoint: Endpoint | None) -> SendResult:
        """Fail with the address and the token in the text and in the result."""
        text = _everything(endpoint)
        result = SendResult(
            outcome="", http_status=2**40, response_payload={text: [text]}, response_excerpt=text, error_message=text
        )
        raise ProviderError(text, result)


def _everything(endpoint: Endpoint | None) -> str:
    assert endpoint
    return f"cannot reach {endpoint.webhook_url.reveal()} with {endpoint.bearer_token.reveal()}"
