"""Adds indexes for filters of the admin's list. They are built beside the requests, and have few of the records."""

from django.db import migrations, models

from notifications.migrations._online import BuildIndex


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("notifications", "0007_due_by_channel")]

    operations = [
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=["status", "created_at", "id"],
                name="notification_by_status",
                condition=models.Q(("status__in", ("dead", "skipped")), ("round__gte", 0)),
            ),
        ),
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=["last_error_code", "created_at", "id"],
                name="notification_by_error_code",
                condition=models.Q(models.Q(("last_error_code", ""), _negated=True), ("round__gte", 0)),
            ),
        ),
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=["channel", "created_at", "id"],
                name="notification_by_channel",
                condition=models.Q(models.Q(("channel", "feishu"), _negated=True), ("round__gte", 0)),
            ),
        ),
    ]
