"""Keeps what an operator entered in a confirmation, if the session has ended before the operator confirms.

Django answers such a POST with the login page and then opens the address by GET. It forgets the fields, and nothing
says that nothing was done. Here the login page says so, and after the login the confirmation opens with the fields
filled in. Nothing is done until the operator confirms again.

The fields are in a signed cookie of the browser that sent them. They are not in the database, where anyone without an
account could store rows. The cookie is used once, at the same address, at most MAX_AGE seconds after the POST. It is
not bound to a user, because a request without a session has none: the page says that the fields were entered in this
browser, and the view checks the permissions of the user who logged in. Forms that save at once are not kept: the form
of a channel can contain secrets.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any, Protocol

from django.conf import settings
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.auth.views import redirect_to_login
from django.core import signing
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext_lazy as _
from django.views import csrf
from django.views.decorators.csrf import csrf_protect

View = Callable[..., HttpResponse]

COOKIE = "notifications_input_token"
"""The name contains "token", so that Django's error reports hide the value."""
MAX_AGE = 3600
"""Seconds."""
MAX_LENGTH = 3800
"""Characters of the cookie's value. Browsers refuse a cookie of more than 4096 with its name."""

KEPT = _(
    "Your session has ended, so nothing was done. What you entered is kept for one hour: log in, check it and confirm "
    "again."
)
NOT_KEPT = _("Your session has ended, so nothing was done. Please do it again.")
FILLED_IN = _(
    "Nothing has been done yet, because the session had ended. This page contains what was entered in this browser "
    "before. Check it, then confirm."
)


class ConfirmingAdmin(Protocol):
    """A model admin that tells which POSTs have a confirmation, as `BaseAdmin` does."""

    admin_site: AdminSite
    confirm_button: str

    def has_confirmation(self, request: HttpRequest) -> bool:
        """Return True if this POST, without `confirm_button`, changes nothing but shows what it would change.

        Args:
            request: The POST.
        """
        ...


def keep_input(view: View, model_admin: ConfirmingAdmin) -> View:
    """Return the view, which then keeps the input of a confirmation for a user who has to log in first.

    Args:
        view: A view of the model admin.
        model_admin: Tells which POSTs have a confirmation.
    """

    # The CSRF token is checked before anything is kept, so that a foreign site cannot fill in a confirmation.
    @csrf_protect
    @wraps(view)
    def inner(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        logged_in = model_admin.admin_site.has_permission(request)
        if request.method == "POST" and not logged_in:
            return _refuse(request, model_admin)
        if request.method != "GET" or not logged_in or COOKIE not in request.COOKIES:
            return view(request, *args, **kwargs)
        filled_in = _fill_in(request, model_admin)
        try:
            response = view(filled_in or request, *args, **kwargs)
        except (PermissionDenied, BadRequest):
            if filled_in is None:
                raise
            response = view(request, *args, **kwargs)  # another user logged in, who may only see the page
        else:
            if filled_in:
                messages.warning(request, FILLED_IN)
        response.delete_cookie(COOKIE, path=_cookie_path(model_admin), samesite="Lax")
        return response

    inner.refuse = lambda request: _refuse(request, model_admin)  # type: ignore[attr-defined]
    return inner


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Keep the input of a confirmation that was opened before the last login, which changed the CSRF token.

    Use it as CSRF_FAILURE_VIEW. Other requests, such as those of a foreign site, get Django's page.
    """
    refuse = getattr(request.resolver_match and request.resolver_match.func, "refuse", None)
    own_origin = f"{request.scheme}://{request.get_host()}"
    if refuse and request.method == "POST" and request.headers.get("Origin") == own_origin:
        answer: HttpResponse = refuse(request)
        return answer
    return csrf.csrf_failure(request, reason)


def _refuse(request: HttpRequest, model_admin: ConfirmingAdmin) -> HttpResponse:
    """Answer a POST that must not run: say so, keep the fields of a confirmation, and lead back to it."""
    kept = _sign(request) if model_admin.has_confirmation(request) else ""
    back = request.get_full_path() if kept else _previous_page(request)
    response: HttpResponse
    if model_admin.admin_site.has_permission(request):
        response = HttpResponseRedirect(back)
    else:
        response = redirect_to_login(back, reverse("admin:login", current_app=model_admin.admin_site.name))
        if kept:
            messages.warning(request, KEPT)
    if kept:
        response.set_cookie(
            COOKIE,
            kept,
            max_age=MAX_AGE,
            path=_cookie_path(model_admin),
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
    else:
        messages.warning(request, NOT_KEPT)
    return response


def _sign(request: HttpRequest) -> str:
    """Return the address and the fields as a signed text, or an empty one if it is too long for a cookie."""
    fields = request.POST.copy()
    fields.pop("csrfmiddlewaretoken", None)
    kept = signing.dumps([request.get_full_path(), fields.urlencode()], salt=COOKIE, compress=True)
    return kept if len(kept) <= MAX_LENGTH else ""


def _fill_in(request: HttpRequest, model_admin: ConfirmingAdmin) -> HttpRequest | None:
    """Return the POST that shows the kept confirmation, or None if none is kept for this address."""
    try:
        address, fields = signing.loads(request.COOKIES[COOKIE], salt=COOKIE, max_age=MAX_AGE)
    except signing.BadSignature:
        return None
    if address != request.get_full_path():
        return None
    post = QueryDict(fields, mutable=True)
    post.pop(model_admin.confirm_button, None)  # the view then only asks
    filled_in = copy(request)
    filled_in.method, filled_in.POST = "POST", post  # type: ignore[assignment]
    return filled_in if model_admin.has_confirmation(filled_in) else None


def _cookie_path(model_admin: ConfirmingAdmin) -> str:
    return reverse("admin:index", current_app=model_admin.admin_site.name)


def _previous_page(request: HttpRequest) -> str:
    """Return the page with the button. The address that the button posts to may have no page."""
    referer = request.headers.get("Referer", "")
    own = url_has_allowed_host_and_scheme(referer, {request.get_host()}, require_https=request.is_secure())
    return referer if own else request.get_full_path()
