"""An email backend that makes the same POST of each email."""

from __future__ import annotations

import os
from collections.abc import Sequence

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend

from benchmarks import wire

COMMAND = "python manage.py send_queued_mail --processes 2"
SETTINGS = "benchmarks.contenders.post_office_settings"
FILL = """
INSERT INTO post_office_email ("from_email", "to", cc, bcc, subject, message, html_message, status, priority, created,
                               last_updated, backend_alias)
SELECT 'a@example.com', 'b@example.com', '', '', 'subject', %(body)s, '', 2, 1, now(), now(), ''
FROM generate_series(1, %(count)s)
"""


class PostingBackend(BaseEmailBackend):
    """Posts the text of an email; a session for each of post_office's threads."""

    def __init__(self, fail_silently: bool = False, **kwargs: object) -> None:
        super().__init__(fail_silently=fail_silently)
        self.session = wire.session()

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Post them."""
        for message in email_messages:
            wire.post(self.session, os.environ["BENCH_URL"], str(message.body).encode())
        return len(email_messages)
