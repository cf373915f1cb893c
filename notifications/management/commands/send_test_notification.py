"""Send one message to a user's Feishu channel now, to see whether it works."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy as _

from notifications.conf import service_options
from notifications.events import EVENT_VERSION, InvalidNotification
from notifications.management.commands._base import Command as Base
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.service import NotificationService
from notifications.states import FINAL, Status, TestStatus


class Command(Base):
    """Takes the same way as any notification, with one attempt."""

    about = _(
        "Send one test message to a user's Feishu channel now, the way every notification goes, and say what came of "
        "it. It is tried once; the result is kept with the channel."
    )
    exit_codes = _("Exit codes: 0 delivered; 1 not delivered, the reason is on stderr; 2 unreadable arguments.")

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the arguments."""
        parser.add_argument("user", metavar="USER", help=gettext("User name, or user id."))
        parser.add_argument("--text", help=gettext("What the message says."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Send, keep the result, say it."""
        user = _user(options["user"])
        # One attempt: a test that comes through half an hour later would only puzzle its reader.
        service = NotificationService(options=dataclasses.replace(service_options(), max_attempts=1), heed_health=False)
        try:
            result = service.handle_feishu_requested(_payload(user, options["text"] or ""))
        except InvalidNotification as error:
            raise CommandError(gettext("The message was refused: %(error)s") % {"error": error}) from None
        record = NotificationRecord.objects.get(pk=result.record_id)
        if record.status in FINAL:
            _keep(record)
        facts = {"id": record.pk, "status": record.get_status_display(), "error": _error(record)}
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


def _payload(user: AbstractBaseUser, text: str) -> dict[str, Any]:
    return {
        "event_version": EVENT_VERSION,
        "user_id": user.pk,
        "trigger_type": "test",
        "preview_id": "test",
        "dedupe_key": f"test:{user.pk}:{uuid.uuid4()}",
        "target_url": "/",
        "summary_text": text,
        "fallback_text": gettext("This is a test message: your channel works."),
        "requested_at": timezone.now().isoformat(),
    }


def _keep(record: NotificationRecord) -> None:
    """Write the result down beside the channel, if there is one."""
    sent = record.status == Status.SENT
    UserNotificationChannel.objects.filter(user_id=record.user_id, channel=record.channel).update(
        last_test_status=TestStatus.SUCCESS if sent else TestStatus.FAILED,
        last_test_error="" if sent else _error(record)[:191],
        last_test_at=timezone.now(),
    )


def _error(record: NotificationRecord) -> str:
    if not record.last_error_code and not record.last_error:
        return gettext("it is in a worker's hands")
    return f"{record.last_error_code}: {record.last_error}".strip(": ")
