"""OpenTelemetry: a request's trace goes into its record, and sends are linked to it. Without the package: nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def _api() -> Any:
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace


trace = _api()
_TRACE = re.compile(r"(?:[0-9a-f]{2}-)?([0-9a-f]{32})(?:-([0-9a-f]{16})-[0-9a-f]{2})?")
"""A W3C trace id, or a whole traceparent."""


def current_trace_id() -> str:
    """Return the W3C trace id of the active span as 32 hex digits, or an empty string."""
    if trace is None:
        return ""
    context = trace.get_current_span().get_span_context()
    return str(trace.format_trace_id(context.trace_id)) if context.is_valid else ""


@contextmanager
def sending(trace_id: str, **attributes: str | int) -> Iterator[Callable[[str, str], None]]:
    """Make a span of one send while the block runs, linked to the trace of its request.

    Yields a function that takes the outcome and the error code.
    """
    # A span that nobody will see costs a quarter of a send all the same.
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield lambda outcome, code: None
        return
    with trace.get_tracer("notifications").start_as_current_span(
        "notifications.send",
        kind=trace.SpanKind.CLIENT,
        attributes={f"notifications.{name}": value for name, value in attributes.items()},
        links=_links(trace_id),
        record_exception=False,  # its text may hold the address, which is a credential
        set_status_on_exception=False,
    ) as span:

        def note(outcome: str, code: str) -> None:
            span.set_attribute("notifications.outcome", str(outcome))
            if code:
                span.set_attribute("notifications.error_code", str(code))
                span.set_status(trace.StatusCode.ERROR, str(code))

        yield note


def _links(trace_id: str) -> list[Any]:
    match = _TRACE.fullmatch(trace_id)
    if match is None or not int(match[1], 16):
        return []
    # Only a traceparent says which span of the trace asked. A link needs one all the same; the trace is what counts.
    span_id = int(match[2] or match[1][16:], 16) or 1
    context = trace.SpanContext(int(match[1], 16), span_id, is_remote=True, trace_flags=trace.TraceFlags(1))
    return [trace.Link(context)]
