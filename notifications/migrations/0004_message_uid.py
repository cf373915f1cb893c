"""Adds a nullable column without a default: PostgreSQL does not rewrite the table, and the lock lasts milliseconds."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("notifications", "0003_rename_columns_in_state")]

    operations = [
        migrations.AddField("NotificationRecord", "message_uid", models.UUIDField(null=True, editable=False)),
    ]
