"""Send one test message to a user's channel now."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext, gettext_lazy as _

from notifications.channels.test_message import describe_error, send_test_message
from notifications.conf import service_options
from notifications.ingest.validation import InvalidNotification
from notifications.management.commands._base import Command as Base
from notifications.querysets import primary_users
from notifications.states import Status
from notifications.user_keys import to_user_key


class Command(Base):
    """Sends the message like any other notification, with one attempt."""

    about = _(
        "Send one test message to a user's channel now, as any notification is sent, and print the result. There is "
        "one attempt. The result is stored with the channel."
    )
    exit_codes = _("Exit codes: 0 delivered; 1 not delivered, the reason is on stderr; 2 invalid arguments.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the arguments."""
        parser.add_argument("user", metavar="USER", help=gettext("User name or user id."))
        parser.add_argument(
            "--channel",
            choices=sorted(service_options().providers),
            default="feishu",
            help=gettext("The channel; feishu by default."),
        )
        parser.add_argument("--text", help=gettext("The text of the message."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Send the message and print the result."""
        user = _user(options["user"])
        try:
            record = send_test_message(user, options["text"] or "", channel=options["channel"])
        except InvalidNotification as error:
            raise CommandError(gettext("The message was rejected: %(error)s") % {"error": error}) from None
        result = {"id": record.pk, "status": record.get_status_display(), "error": describe_error(record)}
        if record.status != Status.SENT:
            raise CommandError(gettext("Not delivered (record %(id)d, %(status)s): %(error)s") % result)
        self.stdout.write(gettext("Delivered (record %(id)d).") % result)
        if options["text"] and record.fallback_used:
            self.stdout.write(
                gettext("Your text was replaced, because messages must not contain links to other sites.")
            )


def _user(name: str) -> AbstractBaseUser:
    """Return the user with this name, else with this id. A name that is a number is tried as a name first."""
    model = get_user_model()
    user = primary_users().filter(**{model.USERNAME_FIELD: name}).first()
    if user is None and (key := to_user_key(name)) is not None:
        user = primary_users().filter(pk=key).first()
    if user is None:
        raise CommandError(gettext("There is no user %(name)s.") % {"name": name})
    return user
