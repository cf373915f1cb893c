"""Who is asking: the session of the site, and its CSRF token for whatever changes something."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.middleware.csrf import get_token
from ninja.security import SessionAuth


class Session(SessionAuth):
    """Lets signed-in users in."""

    def __call__(self, request: HttpRequest) -> Any:
        """Return the user, or None for nobody. Raises HttpError 403 for a change without its CSRF token."""
        if not request.user.is_authenticated:
            return None  # first, so that nobody signed in is told to sign in, whatever else is missing
        get_token(request)  # the answer brings the cookie that a page without forms would never get
        return super().__call__(request)


def user_of(request: HttpRequest) -> AbstractBaseUser:
    """Return the signed-in user."""
    return cast(AbstractBaseUser, request.user)
