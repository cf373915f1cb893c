"""Adds a nullable column without a default: PostgreSQL does not rewrite the table, and the lock lasts milliseconds."""

from django.db import migrations, models
from django.utils.translation import gettext_lazy as _

from notifications.migrations._online import WithShortLocks


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("notifications", "0004_message_uid")]

    operations = [
        WithShortLocks(
            migrations.AddField(
                "NotificationRecord",
                "replaced_texts",
                models.JSONField(verbose_name=_("replaced texts"), null=True, editable=False),
            ),
            column="replaced_texts",
        ),
    ]
