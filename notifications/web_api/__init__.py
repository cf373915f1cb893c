"""The HTTP API for the signed-in user: their own channel and their own notifications. docs/api.md shows its use.

The package holds operations, schemas and the form of errors. The rules of a channel are in `channels`. The project's
URLs import `api` from here; `admin`, `management` and `tasks` may import it, the packages below may not.
"""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from ninja import NinjaAPI

from notifications.conf import service_options
from notifications.web_api import channel, errors, notification_list
from notifications.web_api.docs_page import DocsPage
from notifications.web_api.session_auth import UserSession

__all__ = ["api"]


def _title() -> str:
    try:
        return service_options().app_name
    except ImproperlyConfigured:  # the checks report it, and they import this module
        return "Notifications"


class NonAtomicAPI(NinjaAPI):
    """An API whose views Django does not wrap in a transaction, where the project has ATOMIC_REQUESTS.

    A test message is claimed, sent and settled in transactions of their own. The other views have their own too.
    """

    @property
    def urls(self) -> tuple[list[Any], str, str]:
        """The URL patterns, for `path("api/", api.urls)`."""
        patterns, app, namespace = super().urls
        for pattern in patterns:
            pattern.callback = transaction.non_atomic_requests(pattern.callback)
        return patterns, app, namespace


api = NonAtomicAPI(
    title=_title(),
    version="1",
    docs=DocsPage(),
    description="A user's own channel and notifications. Sign in first. A request that changes something needs the "
    "header `X-CSRFToken` with the value of the cookie `csrftoken`. See docs/api.md.",
    auth=[UserSession()],
    urls_namespace="notifications-api",
)
api.add_decorator(never_cache, mode="view")
# Outermost: in an error report it hides the variables of every frame below, the framework's with the body too.
api.add_decorator(sensitive_variables(), mode="view")
api.add_router("/channels", channel.router)
api.add_router("/notifications", notification_list.router)
errors.install(api)
