"""Puts the overview on the first page of the app in the admin, for any admin site of the project."""

from __future__ import annotations

from typing import Any

from django import template

from notifications.admin.overview import Overview, build_overview

register = template.Library()


@register.simple_tag(takes_context=True)
def notifications_overview(context: dict[str, Any]) -> Overview | None:
    """Return the overview for the user of the request; None for a user who may not view notifications."""
    return build_overview(context["request"])
