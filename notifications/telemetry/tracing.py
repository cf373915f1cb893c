"""OpenTelemetry spans: a record stores the trace id of its request, and each send is linked to that trace.

Only OpenTelemetry's API is needed. Without a tracer provider, which its SDK brings, no span is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from opentelemetry import trace

_TRACE = re.compile(r"(?:[0-9a-f]{2}-)?([0-9a-f]{32})(?:-([0-9a-f]{16})-[0-9a-f]{2})?")
"""A W3C trace id, or a whole traceparent: https://www.w3.org/TR/trace-context/#traceparent-header"""


def current_trace_id() -> str:
    """Return the W3C trace id of the active span as 32 hex digits, or an empty string without an active span."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def send_span(
    trace_id: str, *, current: bool = True, **attributes: str | int
) -> AbstractContextManager[Callable[[str, str], None]]:
    """Make a span of one send, linked to the trace of its request.

    Args:
        trace_id: Trace id of the record. A value that is no W3C trace id or traceparent gives no link.
        current: Whether it is the current span of the thread. Not for a send beside others in one thread.
        **attributes: Attributes of the span; `notifications.` is put before each name.

    Returns:
        A context with a function that takes the outcome and the error code (empty: none) and sets them on the span.
    """
    # Without a tracer provider the span is not recorded, but creating it would take a quarter of the time of a send.
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return _NO_SPAN
    return _recorded_span(trace_id, current=current, attributes=attributes)


_NO_SPAN: AbstractContextManager[Callable[[str, str], None]] = nullcontext(lambda outcome, code: None)


@contextmanager
def _recorded_span(
    trace_id: str, *, current: bool, attributes: dict[str, str | int]
) -> Iterator[Callable[[str, str], None]]:
    span = trace.get_tracer("notifications").start_span(
        "notifications.send",
        kind=trace.SpanKind.CLIENT,
        attributes={f"notifications.{name}": value for name, value in attributes.items()},
        links=_links(trace_id),
        record_exception=False,  # the text of an exception may hold the webhook address, which is a credential
        set_status_on_exception=False,
    )
    with ExitStack() as stack:
        stack.callback(span.end)
        if current:
            stack.enter_context(trace.use_span(span, record_exception=False, set_status_on_exception=False))

        def record_outcome(outcome: str, code: str) -> None:
            span.set_attribute("notifications.outcome", str(outcome))
            if code:
                span.set_attribute("notifications.error_code", str(code))
                span.set_status(trace.StatusCode.ERROR, str(code))

        yield record_outcome


def _links(trace_id: str) -> list[trace.Link]:
    match = _TRACE.fullmatch(trace_id)
    if match is None or not int(match[1], 16):
        return []
    # Only a traceparent names the span. A link needs a span id too, so a plain trace id gets a made-up one.
    span_id = int(match[2] or match[1][16:], 16) or 1
    context = trace.SpanContext(int(match[1], 16), span_id, is_remote=True, trace_flags=trace.TraceFlags(1))
    return [trace.Link(context)]
