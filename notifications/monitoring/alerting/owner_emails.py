"""Mails to the owners of channels that are paused or at their rate limit, so that they can fix the endpoint.

One mail for each pause; at most one a day for an endpoint at its rate limit.
"""

from __future__ import annotations

import logging
from smtplib import SMTPRecipientsRefused

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils import translation
from django.utils.translation import gettext

from notifications.conf import service_options
from notifications.conf.options import SKIP
from notifications.models import UserNotificationChannel
from notifications.querysets import inactive_users, primary_users

logger = logging.getLogger("notifications.owners")

MAX_EMAILS_PER_RUN = 100
"""Many pauses at once must not keep a worker's slot busy for long. The next run continues."""


def email_channel_owners() -> int:
    """Mail the owners of paused channels who got no mail about this pause. Any number of processes may run this.

    Does nothing unless OWNER_MAIL_FROM is set. A mail that fails ends the run and is sent again by the next one. An
    address that the mail server refuses is skipped for good, so that the other owners need not wait.

    Returns:
        How many channels were handled.
    """
    handled = 0
    while service_options().owner_mail_from and handled < MAX_EMAILS_PER_RUN and (channel := _claim_channel()):
        try:
            _send_mail(channel)
        except SMTPRecipientsRefused:
            logger.warning("owner not notified: the address is refused", extra={"event": "owner.not_told"})
            continue
        except Exception as error:  # a mail backend may raise anything
            UserNotificationChannel.objects.filter(pk=channel.pk).update(owner_notified_at=None)
            logger.warning("owner not notified: %s", type(error).__name__, extra={"event": "owner.not_told"})
            break
        handled += 1
    return handled


def _claim_channel() -> UserNotificationChannel | None:
    """Mark a channel whose owner got no mail, and return it; None if no mail is due.

    The channel that was paused first comes first, then those that are held because they answered with a rate limit.
    """
    not_notified = Q(owner_notified_at__isnull=True) | ~Q(owner_notified_at=F("paused_at"))
    channels = UserNotificationChannel.objects.filter(not_notified, paused_at__isnull=False)
    at_limit = UserNotificationChannel.objects.filter(
        owner_notified_at__isnull=True, paused_at__isnull=True, probe_at__isnull=False
    ).exclude(pause_reason="")
    with transaction.atomic():
        channel = (
            channels.order_by("paused_at").select_for_update(skip_locked=True).first()
            or at_limit.order_by("pk").select_for_update(skip_locked=True).first()
        )
        if channel:
            notified_at = Coalesce("paused_at", Now())
            UserNotificationChannel.objects.filter(pk=channel.pk).update(owner_notified_at=notified_at)
    return channel


def _send_mail(channel: UserNotificationChannel) -> None:
    options = service_options()
    user = primary_users().filter(pk=channel.user_id).first() if channel.user_id is not None else None
    address = getattr(user, user.get_email_field_name(), "") if user else ""
    if not user or not address or (options.inactive_users == SKIP and inactive_users({user.pk})):
        return
    values = {"channel": channel.channel, "reason": channel.pause_reason}
    with translation.override(options.alert_language or settings.LANGUAGE_CODE):
        subject = gettext("Your notifications are waiting")
        at_limit = gettext(
            "Your channel %(channel)s takes no messages for now, because its endpoint answered: %(reason)s.\n\n"
            "Nothing is lost: your messages wait. They are sent when the endpoint takes messages again, without any "
            "action of yours. If this happens often, raise the limit of the bot or the flow behind the channel."
        )
        text = gettext(
            "Your channel %(channel)s was paused, because its endpoint answered: %(reason)s.\n\n"
            "Nothing is lost: your messages wait. Check the bot or the flow behind the channel. Then save its address "
            "again or send a test message. When that works, the waiting messages are sent."
        )
        body = (text if channel.paused_at else at_limit) % values
        EmailMessage(subject, body, from_email=options.owner_mail_from, to=[address]).send()
