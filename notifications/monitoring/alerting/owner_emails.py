"""Tell users, once, that their channel was paused: they can mend it, and what waits goes out then."""

from __future__ import annotations

import logging
from smtplib import SMTPRecipientsRefused

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.mail import EmailMessage
from django.db import connection
from django.utils import translation
from django.utils.translation import gettext

from notifications.conf import service_options

logger = logging.getLogger("notifications.owners")

MOST = 100
"""Mails in one look, so that a bad day does not hold a worker's slot for long; the next look goes on."""

_CLAIM = """
UPDATE user_notification_channels SET owner_told_at = paused_at
WHERE id = (
    SELECT id FROM user_notification_channels
    WHERE paused_at IS NOT NULL AND owner_told_at IS DISTINCT FROM paused_at
    ORDER BY paused_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
)
RETURNING id, user_id, channel, pause_reason
"""
_NOT_TOLD = "UPDATE user_notification_channels SET owner_told_at = NULL WHERE id = %(channel)s"


def email_channel_owners() -> int:
    """Mail the owners of paused channels who do not know yet; return to how many. Any number of processes may do so.

    Does nothing unless OWNER_MAIL_FROM is set. A mail that fails ends the look, and is tried again at the next.
    """
    told = 0
    while service_options().owner_mail_from and told < MOST and (owed := _claim()):
        channel_id, user_id, channel, reason = owed
        try:
            _mail(user_id, channel, reason)
        except SMTPRecipientsRefused:  # nobody can be told at that address, and the others must not wait for it
            logger.warning("owner cannot be told: the address is refused", extra={"event": "owner.not_told"})
            continue
        except Exception as error:  # whatever a mail backend raises
            with connection.cursor() as cursor:
                cursor.execute(_NOT_TOLD, {"channel": channel_id})
            logger.warning("owner not told: %s", type(error).__name__, extra={"event": "owner.not_told"})
            break
        told += 1
    return told


def _claim() -> tuple[int, int, str, str] | None:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM)
        row: tuple[int, int, str, str] | None = cursor.fetchone()
    return row


def _mail(user_id: int, channel: str, reason: str) -> None:
    options = service_options()
    user = get_user_model()._default_manager.filter(pk=user_id).first()
    address = getattr(user, user.get_email_field_name(), "") if user else ""
    if not address:
        return
    facts = {"channel": channel, "reason": reason}
    with translation.override(options.alert_language or settings.LANGUAGE_CODE):
        subject = gettext("Your notifications are waiting")
        text = gettext(
            "Your channel %(channel)s was paused, because its endpoint answered: %(reason)s.\n\n"
            "Nothing is lost: your messages wait. Check the bot or the flow behind the channel, then save its address "
            "anew or send a test message. When that works, what waits is sent."
        )
        EmailMessage(subject, text % facts, from_email=options.owner_mail_from, to=[address]).send()
