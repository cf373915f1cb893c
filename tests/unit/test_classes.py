"""The classes of the app: one base of all exceptions, and no name that means two things."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import defaultdict
from collections.abc import Iterator

import notifications
from notifications.api import DedupeConflict, InvalidNotification
from notifications.channels.rules import InvalidChannel
from notifications.exceptions import NotificationError
from notifications.replay.criteria import InvalidCriteria

DJANGO_NAMES = {"Command", "Migration"}
"""Each command and each migration must have a class of this name."""


def classes() -> Iterator[type]:
    """Yield every class that a module of the app defines."""
    for module in pkgutil.walk_packages(notifications.__path__, "notifications."):
        if "__main__" not in module.name:
            imported = importlib.import_module(module.name)
            yield from (
                member
                for _name, member in inspect.getmembers(imported, inspect.isclass)
                if member.__module__ == module.name
            )


def test_every_exception_is_a_notification_error() -> None:
    exceptions = [member for member in classes() if issubclass(member, BaseException)]

    assert len(exceptions) > 10
    assert [member for member in exceptions if not issubclass(member, NotificationError)] == []


def test_public_exceptions_about_bad_input_stay_value_errors() -> None:
    public = (InvalidNotification, DedupeConflict, InvalidCriteria, InvalidChannel)

    assert [member for member in public if not issubclass(member, ValueError)] == []


def test_every_class_name_is_used_once() -> None:
    modules: dict[str, set[str]] = defaultdict(set)
    for member in classes():
        if member.__name__ not in DJANGO_NAMES:
            modules[member.__name__].add(member.__module__)

    assert {name: places for name, places in modules.items() if len(places) > 1} == {}
