"""/healthz, /readyz and /metrics: asked by machines, so answered before hosts, sessions and languages are looked at."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from django.db import Error
from django.http import HttpRequest, HttpResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from notifications.conf import service_options
from notifications.monitoring.alerting.dispatcher import evaluate_if_due
from notifications.monitoring.prometheus import exposition
from notifications.monitoring.readiness import PARTS, readiness

Answer = Callable[[HttpRequest], HttpResponse]


class ProbesMiddleware:
    """Answers the three addresses and lets every other request pass. Belongs first in MIDDLEWARE.

    A probe comes by address of the machine, over plain http and without cookies; no other part may refuse it for that.
    """

    def __init__(self, get_response: Answer) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer, or pass the request on."""
        probe = PROBES.get(request.path_info)
        if probe is None:
            return self.get_response(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"})
        response = probe(request)
        response.headers["Cache-Control"] = "no-store"
        response.headers["Content-Length"] = str(len(response.content))
        response._has_been_logged = True  # type: ignore[attr-defined]  # else Django calls each 503 an error of ours
        return response


def healthz(request: HttpRequest) -> HttpResponse:
    """Say that this process answers. Nothing else is touched, so that no outage makes anybody restart it."""
    return _json({"alive": True}, HTTPStatus.OK)


def readyz(request: HttpRequest) -> HttpResponse:
    """Say which parts work; 503 when one that delivery needs does not. `?exclude=sweep` leaves a part out."""
    exclude = request.GET.getlist("exclude")
    if unknown := sorted(set(exclude) - set(PARTS)):
        return _json({"exclude": f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}"}, HTTPStatus.BAD_REQUEST)
    found = readiness(exclude=exclude)
    return _json(found.as_json(), HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE, _ThenLook)


def metrics(request: HttpRequest) -> HttpResponse:
    """Give the metrics to whoever has the token, or to anybody where none is set."""
    token = service_options().metrics_token
    given = request.headers.get("Authorization", "")
    if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
        return HttpResponse(status=HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"})
    try:
        return HttpResponse(exposition(), content_type=CONTENT_TYPE_LATEST)
    except Error as error:
        # The type only: the text may name the database's address.
        text = f"the database does not answer ({type(error).__name__})\n"
        return HttpResponse(text, status=HTTPStatus.SERVICE_UNAVAILABLE, content_type="text/plain")


class _ThenLook(HttpResponse):
    """An answer after which we look: a beat that is gone cannot tell anybody, and whoever asked need not wait."""

    def close(self) -> None:
        """Look when everything has been sent; the server calls this."""
        evaluate_if_due()
        super().close()


PROBES: dict[str, Answer] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}


def _json(value: dict[str, Any], status: HTTPStatus, kind: type[HttpResponse] = HttpResponse) -> HttpResponse:
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    return kind(text, status=status, content_type="application/json")
