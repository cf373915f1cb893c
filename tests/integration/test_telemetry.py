"""Traces lead from the request to its sends; nothing secret leaves by traces or errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from notifications.api import request_notification
from notifications.delivery.engine import Engine
from notifications.models import NotificationRecord
from notifications.providers.memory import MemoryProvider
from notifications.telemetry import tracing
from smartmate.telemetry import scrub
from tests.support.paths import ROOT
from tests.support.payloads import payload
from tests.support.post_receiver import PostReceiver

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
KEY = "canary0123456789"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans that have ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


@pytest.fixture
def receiver() -> Iterator[PostReceiver]:
    """A server that receives what is exported."""
    receiver = PostReceiver()
    yield receiver
    receiver.close()


def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python inside the project."""
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "smartmate.settings"} | env
    return subprocess.run(
        [sys.executable, "-c", f"import django; django.setup()\n{program}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip


def send_one(make_user: Callable[..., User], memory: MemoryProvider, **fields: Any) -> NotificationRecord:
    """Ask for one and deliver it."""
    accepted = request_notification(payload(user_id=make_user().pk, **fields))
    Engine(providers={"feishu": memory}).deliver_due()
    return NotificationRecord.objects.get(pk=accepted.record_id)


def sends(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    """Return the spans of sends."""
    return [span for span in spans.get_finished_spans() if span.name == "notifications.send"]


@pytest.mark.django_db(transaction=True)
def test_the_trace_of_a_request_leads_to_its_send(
    spans: InMemorySpanExporter, make_user: Callable[..., User], memory: MemoryProvider
) -> None:
    with trace.get_tracer("test").start_as_current_span("asks") as asking:
        accepted = request_notification(payload(user_id=make_user().pk, trace_id=""))
    Engine(providers={"feishu": memory}).deliver_due()

    record = NotificationRecord.objects.get(pk=accepted.record_id)
    [span] = sends(spans)
    trace_id = asking.get_span_context().trace_id
    assert record.trace_id == trace.format_trace_id(trace_id)
    assert [link.context.trace_id for link in span.links] == [trace_id]
    assert span.parent is None
    assert span.attributes == {
        "notifications.channel": "memory",
        "notifications.record_id": record.pk,
        "notifications.attempt": 1,
        "notifications.outcome": "success",
    }


@pytest.mark.django_db(transaction=True)
def test_a_trace_id_of_the_producer_is_kept(
    spans: InMemorySpanExporter, make_user: Callable[..., User], memory: MemoryProvider
) -> None:
    with trace.get_tracer("test").start_as_current_span("asks"):
        record = send_one(make_user, memory, trace_id="order-7")

    assert record.trace_id == "order-7"
    assert sends(spans)[0].links == ()


def test_only_a_w3c_trace_is_linked(spans: InMemorySpanExporter) -> None:
    for trace_id, linked in (
        (TRACE, (int(TRACE, 16), int(TRACE[16:], 16))),
        (f"00-{TRACE}-00f067aa0ba902b7-01", (int(TRACE, 16), 0x00F067AA0BA902B7)),
        ("0" * 32, None),
        (TRACE.upper(), None),
        ("trace-1", None),
        ("", None),
    ):
        with tracing.send_span(trace_id) as record_outcome:
            record_outcome("temporary_fail", "network_error")

        span = sends(spans)[-1]
        links = [(link.context.trace_id, link.context.span_id) for link in span.links]
        assert links == ([linked] if linked else []), trace_id
        assert not span.status.is_ok, trace_id


@pytest.mark.django_db(transaction=True)
def test_a_request_without_a_span_has_no_trace_id(make_user: Callable[..., User], memory: MemoryProvider) -> None:
    assert tracing.current_trace_id() == ""

    record = send_one(make_user, memory, trace_id="")

    assert (record.trace_id, record.status) == ("", "sent")


@pytest.mark.processes
def test_the_environment_starts_the_instrumentations(receiver: PostReceiver) -> None:
    run(
        "from django.test import Client\n"
        "from notifications.telemetry.tracing import send_span\n"
        "Client().get('/admin/login/', headers={'host': 'localhost'})\n"
        "Client().get('/healthz')\n"
        "from django.db import connection; connection.cursor().execute('SELECT 41')\n"
        "with send_span('') as note: note('success', '')\n"
        "from opentelemetry import trace; trace.get_tracer_provider().shutdown()",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{receiver.port}",
    )

    assert b"smartmate-notifications" in receiver.received
    assert b"notifications.send" in receiver.received
    assert b"admin/login/" in receiver.received
    assert b"SELECT 41" in receiver.received
    assert b"healthz" not in receiver.received


@pytest.mark.processes
def test_a_missing_package_that_the_environment_asks_for_is_logged() -> None:
    hidden = "import sys\nsys.modules['sentry_sdk'] = sys.modules['opentelemetry.sdk'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{hidden}import django; django.setup()"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {
            "DJANGO_SETTINGS_MODULE": "smartmate.settings",
            "SENTRY_DSN": "http://key@127.0.0.1:1/1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        },
    )  # fmt: skip

    assert "Sentry is configured, but sentry_sdk is not installed" in done.stderr
    assert "OpenTelemetry is configured, but opentelemetry.sdk" in done.stderr


@pytest.mark.processes
def test_errors_reach_sentry_without_secrets(receiver: PostReceiver) -> None:
    run(
        "import logging, sentry_sdk\n"
        f"address = 'https://www.feishu.cn/flow/api/trigger-webhook/{KEY}'\n"
        f"logging.getLogger('x').warning('Authorization: Bearer {KEY}')\n"
        "try:\n"
        "    raise RuntimeError('cannot reach ' + address)\n"
        "except RuntimeError:\n"
        f"    extra = {{'bearer_token': '{KEY}', 'deep': [{{'url': address}}]}}\n"
        "    logging.getLogger('y').exception('failed', extra=extra)\n"
        "sentry_sdk.flush(10)",
        SENTRY_DSN=f"http://public@127.0.0.1:{receiver.port}/1",
    )

    assert b"RuntimeError" in receiver.received
    assert b"trigger-webhook/********" in receiver.received
    assert KEY.encode() not in receiver.received


def test_an_event_that_cannot_be_scrubbed_is_dropped() -> None:
    event: dict[str, Any] = {}
    event["itself"] = event

    assert scrub(event) is None
