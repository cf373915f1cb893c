"""Brings the overview into the admin's index of the app, whichever admin site that is."""

from __future__ import annotations

from typing import Any

from django import template

from notifications.admin.overview import Overview, overview

register = template.Library()


@register.simple_tag(takes_context=True)
def notifications_overview(context: dict[str, Any]) -> Overview | None:
    """Return what the reader of this page may see; None if that is nothing."""
    return overview(context["request"])
