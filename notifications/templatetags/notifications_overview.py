"""Brings the overview into the admin's index of the app, whichever admin site that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import template

if TYPE_CHECKING:
    from notifications.admin.overview import Overview

register = template.Library()


@register.simple_tag(takes_context=True)
def notifications_overview(context: dict[str, Any]) -> Overview | None:
    """Return what the reader of this page may see; None if that is nothing."""
    # Not at the top: the checks import all tag libraries, and the admin's modules need django.contrib.admin.
    from notifications.admin.overview import overview

    return overview(context["request"])
