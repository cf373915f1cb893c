"""Attributes get the field's terms; the columns keep their names, so that no statement reaches the database."""

from django.db import migrations, models
from django.db.models import Q

HELD = ["channel_paused", "endpoint_failing"]


class Migration(migrations.Migration):
    dependencies = [("notifications", "0002_operators_and_endpoints")]

    operations = [
        # The table keeps its name, so this renames the content type and nothing else.
        migrations.RenameModel("Tally", "Counter"),
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveIndex("NotificationRecord", "notification_held_up"),
                migrations.RenameField("NotificationRecord", "wait_reason", "hold_reason"),
                migrations.AddIndex(
                    "NotificationRecord",
                    models.Index(
                        fields=("user", "channel", "id"),
                        name="notification_held_up",
                        condition=Q(hold_reason__in=HELD),
                    ),
                ),
                migrations.RenameField("UserNotificationChannel", "owner_told_at", "owner_notified_at"),
                migrations.RemoveConstraint("Alert", "alert_once"),
                migrations.RenameField("Alert", "sink", "receiver"),
                migrations.RenameField("Alert", "telling_until", "claimed_until"),
                migrations.RenameField("Alert", "told_at", "sent_at"),
                migrations.RenameField("Alert", "cleared_at", "resolved_at"),
                migrations.RenameField("Alert", "all_clear_at", "resolution_sent_at"),
                migrations.AddConstraint(
                    "Alert", models.UniqueConstraint(fields=("cause", "receiver"), name="alert_once")
                ),
                migrations.RenameField("ReplayOperation", "walked_to", "cursor_at"),
                migrations.RenameField("ReplayOperation", "walked_to_id", "cursor_id"),
            ],
        ),
    ]
