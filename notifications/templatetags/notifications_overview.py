"""Puts the overview on the first page of the app in the admin, for any admin site of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template

if TYPE_CHECKING:
    from notifications.admin.overview import Overview

register = template.Library()


@register.simple_tag(takes_context=True)
def notifications_overview(context: dict[str, Any]) -> Overview | None:
    """Return the overview for the user of the request; None for a user who may not view notifications."""
    # Not at the top: the checks import all tag libraries, and the admin's modules need django.contrib.admin.
    from notifications.admin.overview import build_overview

    return build_overview(context["request"])
