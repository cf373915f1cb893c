"""The documentation page of the API."""

from __future__ import annotations

from typing import Any

from django.contrib.staticfiles.finders import find
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.openapi.docs import ABS_TPL_PATH, Swagger


class Page(Swagger):
    """Takes its scripts from this site where they are among the static files, else from a CDN.

    Ninja's own does so only with "ninja" in INSTALLED_APPS, which makes each worker import all of it for nothing.
    Without that its templates have to be found as well.
    """

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        """Return the page."""
        if find("ninja/swagger-ui-bundle.js"):
            self.template_cdn = str(ABS_TPL_PATH / "swagger.html")
        return super().render_page(request, api, **kwargs)
