"""/healthz, /readyz and /metrics. A middleware answers them before hosts, sessions and languages are checked."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.utils import translation
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from notifications.conf import service_options
from notifications.monitoring.alerting.dispatcher import evaluate_if_due
from notifications.monitoring.prometheus import exposition
from notifications.monitoring.readiness import PARTS, readiness

GetResponse = Callable[[HttpRequest], HttpResponse]


class ProbesMiddleware:
    """Answers the three addresses and passes every other request on. Put it first in MIDDLEWARE.

    A probe uses the address of the machine, plain http and no cookies. No other middleware may refuse it for that.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a probe, or pass the request on."""
        probe = PROBES.get(request.path_info)
        if probe is None:
            return self.get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        # The thread may still have the language of the browser that it served last.
        with translation.override(settings.LANGUAGE_CODE):
            response = probe(request)
        response.headers["Cache-Control"] = "no-store"
        response.headers["Content-Length"] = str(len(response.content))
        response._has_been_logged = True  # type: ignore[attr-defined]  # else Django logs each 503 as our error
        return response


def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 while this process runs. Nothing else is checked, so that no outage elsewhere causes a restart."""
    return _json({"alive": True}, HTTPStatus.OK)


def readyz(request: HttpRequest) -> HttpResponse:
    """Answer which parts work: 200, or 503 when a deciding part failed. `?exclude=sweep` leaves a part out."""
    exclude = request.GET.getlist("exclude")
    if unknown := sorted(set(exclude) - set(PARTS)):
        return _json({"exclude": f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}"}, HTTPStatus.BAD_REQUEST)
    result = readiness(exclude=exclude)
    status = HTTPStatus.OK if result.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return _json(result.as_json(), status, _AlertingResponse)


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer the metrics in Prometheus' text format; 401 without METRICS_TOKEN where one is set."""
    token = service_options().metrics_token
    given = request.headers.get("Authorization", "")
    if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        return HttpResponse(status=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
    try:
        return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST)
    except Error as error:
        # Only the type: the text may name the database's address.
        text = f"the database does not answer ({type(error).__name__})\n"
        return HttpResponse(text, status=HTTPStatus.SERVICE_UNAVAILABLE, content_type="text/plain")


class _AlertingResponse(HttpResponse):
    """Evaluates the alerts after it was sent: a stopped beat cannot report itself, and the client need not wait."""

    def close(self) -> None:
        """Evaluate the alerts. The server calls this after the last byte was sent."""
        evaluate_if_due()
        super().close()


PROBES: dict[str, GetResponse] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


def _json(value: dict[str, Any], status: HTTPStatus, kind: type[HttpResponse] = HttpResponse) -> HttpResponse:
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    return kind(text, status=status, content_type="application/json")
