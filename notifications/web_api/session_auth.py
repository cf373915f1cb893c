"""Authentication by the session of the site, with a CSRF token for requests that change something."""

from __future__ import annotations

from typing import Any, cast

from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.middleware.csrf import get_token
from ninja.security import SessionAuth


class UserSession(SessionAuth):
    """Accepts requests of signed-in users."""

    def __call__(self, request: HttpRequest) -> Any:
        """Return the signed-in user, or None if nobody is signed in.

        Args:
            request: The request to authenticate.

        Raises:
            HttpError: Status 403 if a changing request has no valid CSRF token.
        """
        if not request.user.is_authenticated:
            return None  # checked before the CSRF token, so that the error says "Sign in first."
        get_token(request)  # sets the CSRF cookie, which a site without forms never sets
        return super().__call__(request)


def user_of(request: HttpRequest) -> AbstractBaseUser:
    """Return the signed-in user."""
    return cast(AbstractBaseUser, request.user)
