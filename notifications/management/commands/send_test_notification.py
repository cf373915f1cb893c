"""Send one message to a user's channel now, to see whether it works."""

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
from notifications.states import Status


class Command(Base):
    """Takes the same way as any notification, with one attempt."""

    about = _(
        "Send one test message to a user's channel now, the way every notification goes, and say what came of "
        "it. It is tried once; the result is kept with the channel."
    )
    exit_codes = _("Exit codes: 0 delivered; 1 not delivered, the reason is on stderr; 2 unreadable arguments.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the arguments."""
        parser.add_argument("user", metavar="USER", help=gettext("User name, or user id."))
        parser.add_argument(
            "--channel",
            choices=sorted(service_options().providers),
            default="feishu",
            help=gettext("By default feishu."),
        )
        parser.add_argument("--text", help=gettext("What the message says."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Send, keep the result, say it."""
        user = _user(options["user"])
        try:
            record = send_test_message(user, options["text"] or "", channel=options["channel"])
        except InvalidNotification as error:
            raise CommandError(gettext("The message was refused: %(error)s") % {"error": error}) from None
        facts = {"id": record.pk, "status": record.get_status_display(), "error": describe_error(record)}
        if record.status != Status.SENT:
            raise CommandError(gettext("Not delivered (record %(id)d, %(status)s): %(error)s") % facts)
        self.stdout.write(gettext("Delivered (record %(id)d).") % facts)
        if options["text"] and record.fallback_used:
            self.stdout.write(gettext("Your text was replaced: messages may not hold links."))


def _user(name: str) -> AbstractBaseUser:
    """Return the user of this name, else of this id. A name of digits is a name first."""
    model = get_user_model()
    found = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
    if found is None and name.isascii() and name.isdigit():
        found = model._default_manager.filter(pk=int(name)).first()
    if found is None:
        raise CommandError(gettext("There is no user %(name)s.") % {"name": name})
    return found
