"""Traces by OpenTelemetry and errors to Sentry, if the environment configures them and their packages are installed."""

from __future__ import annotations

import logging
import os
import re
import threading
from typing import Any

from notifications.security.error_reports import Filter
from notifications.security.log_redaction import redact_text
from smartmate.env import read, refused

logger = logging.getLogger("smartmate.telemetry")


def start() -> None:
    """Start what the environment configures."""
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        _start_or_warn("OpenTelemetry", _start_tracing)
    if dsn := (read("SENTRY_DSN") or "").strip():
        if not re.match(r"https?://[^\s/@]+@[^\s/@]+/\S*\d", dsn):
            raise refused("SENTRY_DSN", "must be an address such as https://key@sentry.example.com/1")
        _start_or_warn("Sentry", lambda: _start_sentry(dsn))


def _start_or_warn(name: str, begin: Any) -> None:
    try:
        begin()
    except ImportError as error:
        logger.warning("%s is configured, but %s is not installed", name, error.name)


def _start_tracing() -> None:
    """Trace requests, tasks, statements and Redis; exporter, sampler and names come from the OTEL_* variables."""
    # Before the imports, which read them.
    os.environ.setdefault("OTEL_SERVICE_NAME", "smartmate-notifications")
    os.environ.setdefault("OTEL_PYTHON_DJANGO_EXCLUDED_URLS", "healthz,readyz,metrics")

    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.instrumentation.psycopg2 import Psycopg2Instrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class ExportingProcessor(SpanProcessor):
        """Exports from the first span on. The exporter has a thread, which a process that forks must not have."""

        def __init__(self) -> None:
            self._lock = threading.Lock()
            self._exporter: BatchSpanProcessor | None = None

        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            span.set_attribute("process.pid", os.getpid())

        def on_end(self, span: ReadableSpan) -> None:
            with self._lock:
                if not self._exporter:
                    self._exporter = BatchSpanProcessor(OTLPSpanExporter())
            self._exporter.on_end(span)

        def shutdown(self) -> None:
            if self._exporter:
                self._exporter.shutdown()  # type: ignore[no-untyped-call]

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return not self._exporter or self._exporter.force_flush(timeout_millis)

    provider = TracerProvider(resource=Resource.create())
    provider.add_span_processor(ExportingProcessor())
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument()
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
    Psycopg2Instrumentor().instrument(skip_dep_check=True)  # the package may be psycopg2-binary
    RedisInstrumentor().instrument()


def _start_sentry(dsn: str) -> None:
    import sentry_sdk

    sentry_sdk.init(
        dsn=dsn,
        send_default_pii=False,
        include_local_variables=False,  # they hold addresses and tokens in the clear while a message is sent
        max_request_body_size="never",
        before_send=scrub,
        before_send_transaction=scrub,
        before_breadcrumb=scrub,
    )


def scrub(event: Any, hint: Any = None) -> Any:
    """Remove webhook keys, tokens and passwords from an event of Sentry.

    Args:
        event: The event, as JSON values.
        hint: Not used; Sentry passes it.

    Returns:
        The event without secrets. None if it is nested too deeply; Sentry then drops it.
    """
    try:
        return _scrubbed(event)
    except RecursionError:
        return None


def _scrubbed(value: Any) -> Any:
    match value:
        case dict():
            return {
                key: Filter.cleansed_substitute
                if isinstance(key, str) and isinstance(item, str) and Filter.hidden_settings.search(key)
                else _scrubbed(item)
                for key, item in value.items()
            }
        case list() | tuple():
            return [_scrubbed(item) for item in value]
        case str():
            return redact_text(value)
        case _:
            return value
