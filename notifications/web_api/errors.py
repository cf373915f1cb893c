"""Every refusal in one shape: {"errors": [{"field": ..., "message": ...}]}, in the user's language."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError

from notifications.channels.rules import InvalidChannel
from notifications.channels.test_message import TestRateLimited
from notifications.content.text import escape_invisible

Problem = tuple[str, str | Promise]
"""Field and reason."""

SENTENCES: dict[str, str | Promise] = {
    "missing": _("is required"),
    "extra_forbidden": _("is not a known field"),
    "string_type": _("must be a string"),
    "too_long": _("is longer than %(limit)d characters"),
    "string_unicode": _("is not valid Unicode"),
    "bool_type": _("must be true or false"),
    "enum": _("must be one of: %(known)s"),
    "int_parsing": _("must be a whole number"),
    "int_parsing_size": _("is too large"),
    "greater_than_equal": _("must be at least %(limit)d"),
    "less_than_equal": _("must be at most %(limit)d"),
    "model_type": _("must be an object"),
}
"""By pydantic's name of what is wrong."""
STATUSES: dict[int, Problem] = {
    400: ("body", _("is not JSON")),
    403: ("", _("The header X-CSRFToken is missing or wrong; it must repeat the cookie csrftoken.")),
}
LONGEST_NAME = 64
MOST = 20
"""Errors that are named; one body can hold tens of thousands of unknown fields."""


class Conflict(Exception):
    """What is asked cannot be done as things stand. `errors` lists (field, reason)."""

    def __init__(self, errors: list[Problem]) -> None:
        self.errors = errors
        super().__init__(errors)


def install(api: NinjaAPI) -> None:
    """Let the API answer each refusal in the one shape."""

    def answer(request: HttpRequest, status: int, problems: Iterable[Problem]) -> HttpResponse:
        errors = [{"field": field, "message": str(reason)} for field, reason in problems]
        return api.create_response(request, {"errors": errors}, status=status)

    @api.exception_handler(AuthenticationError)
    def nobody(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
        return answer(request, 401, [("", _("Sign in first."))])

    @api.exception_handler(HttpError)
    def refused_by_the_framework(request: HttpRequest, error: HttpError) -> HttpResponse:
        return answer(request, error.status_code, [STATUSES[error.status_code]])

    @api.exception_handler(RequestDataTooBig)
    def too_big(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
        return answer(request, 413, [("body", _("is too large"))])

    @api.exception_handler(ValidationError)
    def malformed(request: HttpRequest, error: ValidationError) -> HttpResponse:
        return answer(request, 422, map(_explained, error.errors[:MOST]))

    @api.exception_handler(InvalidChannel)
    def refused(request: HttpRequest, error: InvalidChannel) -> HttpResponse:
        return answer(request, 422, error.errors)

    @api.exception_handler(Conflict)
    def conflict(request: HttpRequest, error: Conflict) -> HttpResponse:
        return answer(request, 409, error.errors)

    @api.exception_handler(TestRateLimited)
    def too_soon(request: HttpRequest, error: TestRateLimited) -> HttpResponse:
        reason = _("The last test was a moment ago; try again in %(seconds)d s.") % {"seconds": error.seconds}
        response = answer(request, 429, [("", reason)])
        response["Retry-After"] = str(error.seconds)
        return response

    @api.exception_handler(Exception)
    def bug(request: HttpRequest, error: Exception) -> HttpResponse:
        raise error  # to Django, whose reports hide secrets; the framework's own would show a bare traceback


def _explained(error: dict[str, Any]) -> Problem:
    """Return field and reason of one of pydantic's errors; never what was sent."""
    source, *names = error["loc"]
    names = [str(name) for name in names if name != "data"]
    facts = error.get("ctx", {})
    values = {
        "limit": facts.get("max_length", facts.get("ge", facts.get("le"))),
        "known": ", ".join(re.findall("'([^']*)'", str(facts.get("expected", "")))),
    }
    reason = str(SENTENCES.get(error["type"], _("is not valid")))
    return escape_invisible(".".join(names))[:LONGEST_NAME] or str(
        source
    ), reason % values if "%(" in reason else reason
