"""Adds the priority of records and the indexes of it.

The column has a default in the database, so PostgreSQL does not rewrite the table, and workers of the last version go
on inserting. No row breaks the new constraint, so none is read to check it. The new index on due records is there
before the old one goes. Workers of version 0.1 use the index notification_due, which stays.
"""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.utils.translation import gettext_lazy as _

from notifications.migrations._online import BuildIndex, DropIndex, WithShortLocks


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("notifications", "0010_autovacuum")]

    operations = [
        WithShortLocks(
            migrations.AddField(
                "NotificationRecord",
                "priority",
                models.SmallIntegerField(
                    verbose_name=_("priority"),
                    choices=[(0, _("low")), (1, _("normal")), (2, _("high")), (3, _("urgent"))],
                    default=1,
                    db_default=1,
                ),
            ),
            AddConstraintNotValid(
                "NotificationRecord",
                models.CheckConstraint(
                    condition=models.Q(("priority__in", [0, 1, 2, 3])), name="notification_priority_known"
                ),
            ),
            column="priority",
        ),
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=["channel", "priority", "next_attempt_at", "id"],
                name="notification_due_by_priority",
                condition=models.Q(("next_attempt_at__isnull", False)),
            ),
        ),
        DropIndex("NotificationRecord", "notification_due_by_channel"),
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=["priority", "created_at", "id"],
                name="notification_by_priority",
                condition=models.Q(models.Q(("priority", 1), _negated=True), ("round__gte", 0)),
            ),
        ),
    ]
