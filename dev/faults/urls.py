"""The project's URLs, and one URL at which a web request of another app requests notifications."""

from __future__ import annotations

import json

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from notifications.api import request_notifications
from smartmate.urls import urlpatterns as project_urls


class _Rollback(Exception):
    """Rolls the transaction back."""


@csrf_exempt
def request_some(request: HttpRequest) -> JsonResponse:
    """Request notifications in a transaction. Roll it back if the body says so."""
    body = json.loads(request.body)
    try:
        with transaction.atomic():
            request_notifications(body["payloads"])
            if body["undo"]:
                raise _Rollback
    except _Rollback:
        return JsonResponse({"committed": False})
    return JsonResponse({"committed": True})


urlpatterns = [path("request-some", request_some), *project_urls]
