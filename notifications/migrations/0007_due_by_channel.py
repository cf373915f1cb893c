"""Builds an index beside the requests. It can run again after an interruption."""

from django.db import migrations, models

from notifications.migrations._online import BuildIndex


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("notifications", "0006_periodic_tasks")]

    operations = [
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=("channel", "next_attempt_at", "id"),
                name="notification_due_by_channel",
                condition=models.Q(("next_attempt_at__isnull", False)),
            ),
        ),
    ]
