"""Adds a nullable column without a default: PostgreSQL does not rewrite the table, and the lock lasts milliseconds."""

from django.db import migrations, models

from notifications.migrations._online import WithShortLocks


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("notifications", "0003_rename_columns_in_state")]

    operations = [
        WithShortLocks(
            migrations.AddField("NotificationRecord", "message_uid", models.UUIDField(null=True, editable=False)),
            column="message_uid",
        ),
    ]
