"""The URLs of the project."""

from __future__ import annotations

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from notifications.web_api import api

admin.site.site_header = admin.site.site_title = "SmartMate Notifications"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", api.urls),
    path("i18n/", include("django.conf.urls.i18n")),
    path("favicon.ico", RedirectView.as_view(url=static("admin/img/icon-clock.svg"))),
    path("", RedirectView.as_view(pattern_name="admin:index")),
]
