"""The project's addresses, plus one by which another app's web request asks for notifications."""

from __future__ import annotations

import json

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from notifications.api import request_notifications
from smartmate.urls import urlpatterns as project_urls


class _Undone(Exception):
    """Rolls a transaction back."""


@csrf_exempt
def request_some(request: HttpRequest) -> JsonResponse:
    """Ask for notifications inside a transaction, and roll it back if told to."""
    asked = json.loads(request.body)
    try:
        with transaction.atomic():
            request_notifications(asked["payloads"])
            if asked["undo"]:
                raise _Undone
    except _Undone:
        return JsonResponse({"committed": False})
    return JsonResponse({"committed": True})


urlpatterns = [path("request-some", request_some), *project_urls]
