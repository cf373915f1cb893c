"""Error responses. All have the shape {"errors": [{"field": ..., "message": ...}]}, in the user's language."""

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
from notifications.exceptions import NotificationError

FieldProblem = tuple[str, str | Promise]
"""The name of a field, and the reason why it is invalid."""

VALIDATION_MESSAGES: dict[str, str | Promise] = {
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
"""By error type of pydantic."""
HTTP_ERRORS: dict[int, FieldProblem] = {
    400: ("body", _("is not JSON")),
    403: ("", _("The header X-CSRFToken is missing or wrong. It must contain the value of the cookie csrftoken.")),
}
MAX_FIELD_NAME_LENGTH = 64
MAX_ERRORS = 20
"""Errors in one response. A request body can have tens of thousands of unknown fields."""


class Conflict(NotificationError):
    """The request conflicts with the state of the channel.

    Attributes:
        errors: (field, reason) pairs.
    """

    def __init__(self, errors: list[FieldProblem]) -> None:
        self.errors = errors
        super().__init__(errors)


def install(api: NinjaAPI) -> None:
    """Register the exception handlers, so that all errors have the same shape.

    Args:
        api: The API that gets the handlers.
    """

    def respond(request: HttpRequest, status: int, problems: Iterable[FieldProblem]) -> HttpResponse:
        errors = [{"field": field, "message": str(reason)} for field, reason in problems]
        return api.create_response(request, {"errors": errors}, status=status)

    @api.exception_handler(AuthenticationError)
    def not_signed_in(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
        return respond(request, 401, [("", _("Sign in first."))])

    @api.exception_handler(HttpError)
    def http_error(request: HttpRequest, error: HttpError) -> HttpResponse:
        return respond(request, error.status_code, [HTTP_ERRORS[error.status_code]])

    @api.exception_handler(RequestDataTooBig)
    def body_too_large(request: HttpRequest, error: RequestDataTooBig) -> HttpResponse:
        return respond(request, 413, [("body", _("is too large"))])

    @api.exception_handler(ValidationError)
    def invalid_request(request: HttpRequest, error: ValidationError) -> HttpResponse:
        return respond(request, 422, map(_describe_error, error.errors[:MAX_ERRORS]))

    @api.exception_handler(InvalidChannel)
    def invalid_channel(request: HttpRequest, error: InvalidChannel) -> HttpResponse:
        return respond(request, 422, error.errors)

    @api.exception_handler(Conflict)
    def conflict(request: HttpRequest, error: Conflict) -> HttpResponse:
        return respond(request, 409, error.errors)

    @api.exception_handler(TestRateLimited)
    def test_rate_limited(request: HttpRequest, error: TestRateLimited) -> HttpResponse:
        reason = _("A test message was sent a moment ago. Try again in %(seconds)d s.") % {"seconds": error.seconds}
        response = respond(request, 429, [("", reason)])
        response["Retry-After"] = str(error.seconds)
        return response

    @api.exception_handler(Exception)
    def unexpected_error(request: HttpRequest, error: Exception) -> HttpResponse:
        raise error  # Django reports it and hides secrets. The framework would show the full traceback.


def _describe_error(error: dict[str, Any]) -> FieldProblem:
    """Return field and reason of a pydantic error. The submitted value is never part of it."""
    source, *names = error["loc"]
    names = [str(name) for name in names if name != "data"]
    context = error.get("ctx", {})
    values = {
        "limit": context.get("max_length", context.get("ge", context.get("le"))),
        "known": ", ".join(re.findall("'([^']*)'", str(context.get("expected", "")))),
    }
    field = escape_invisible(".".join(names))[:MAX_FIELD_NAME_LENGTH] or str(source)
    reason = str(VALIDATION_MESSAGES.get(error["type"], _("is not valid")))
    return field, reason % values if "%(" in reason else reason
