"""Entries in the admin's log, which the history page of an object shows."""

from __future__ import annotations

from collections.abc import Sequence

from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models

ADDITION = 1
CHANGE = 2
"""The flags of Django's LogEntry. Its module cannot be imported where the admin is not installed."""


def add_admin_log(actor: AbstractBaseUser, objects: Sequence[models.Model], flag: int, message: str) -> None:
    """Store in the caller's transaction that a user changed objects. Does nothing without `django.contrib.admin`.

    The callers also write a log line for each change, so that the change is on record either way.

    Args:
        actor: The user.
        objects: Saved objects of one model.
        flag: ADDITION or CHANGE.
        message: What was done, and why.
    """
    if apps.is_installed("django.contrib.admin"):
        from django.contrib.admin.models import LogEntry

        LogEntry.objects.log_actions(actor.pk, objects, flag, change_message=message)
