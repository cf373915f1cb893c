"""The page that shows the OpenAPI document."""

from __future__ import annotations

from typing import Any

from django.contrib.staticfiles.finders import find
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.openapi.docs import ABS_TPL_PATH, Swagger


class DocsPage(Swagger):
    """Swagger UI that loads its scripts from the static files of this site if they are there, else from a CDN.

    Django Ninja does this only with "ninja" in INSTALLED_APPS. Then every worker would import the package without
    need. Without it, the path of the template must be set here as well.
    """

    def render_page(self, request: HttpRequest, api: NinjaAPI, **kwargs: Any) -> HttpResponse:
        """Return the rendered page."""
        if find("ninja/swagger-ui-bundle.js"):
            self.template_cdn = str(ABS_TPL_PATH / "swagger.html")
        return super().render_page(request, api, **kwargs)
