"""The table of events that wait for receivers of signals. It is new, refers to no other table and locks none."""

from django.db import migrations, models
from django.db.models.deletion import DO_NOTHING
from django.utils.translation import gettext_lazy as _

NAMES = ("delivered", "died", "skipped", "held", "released", "replayed")


class Migration(migrations.Migration):
    dependencies = [("notifications", "0013_general_message")]

    operations = [
        migrations.CreateModel(
            name="NotificationEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "name",
                    models.CharField(
                        verbose_name=_("signal"), max_length=16, choices=[(name, name) for name in NAMES]
                    ),
                ),
                ("payload", models.JSONField(verbose_name=_("arguments"))),
                ("received_by", models.JSONField(verbose_name=_("taken by"), default=list)),
                ("occurred_at", models.DateTimeField(verbose_name=_("time"))),
                ("attempts", models.IntegerField(verbose_name=_("attempts"), default=0)),
                ("next_attempt_at", models.DateTimeField(verbose_name=_("next attempt"), null=True)),
                ("error", models.CharField(verbose_name=_("error"), max_length=191, blank=True)),
                (
                    "record",
                    models.ForeignKey(
                        to="notifications.notificationrecord",
                        on_delete=DO_NOTHING,
                        db_constraint=False,
                        db_index=False,
                        related_name="+",
                        verbose_name=_("notification"),
                    ),
                ),
            ],
            options={
                "verbose_name": _("signal to send"),
                "verbose_name_plural": _("signals to send"),
                "db_table": "notification_events",
                "default_permissions": ("view", "delete"),
                "indexes": [
                    models.Index(
                        fields=["next_attempt_at", "id"],
                        name="event_due",
                        condition=models.Q(("next_attempt_at__isnull", False)),
                    ),
                    models.Index(fields=["record", "id"], name="event_of_record"),
                    models.Index(
                        fields=["occurred_at"],
                        name="event_given_up",
                        condition=models.Q(("next_attempt_at__isnull", True)),
                    ),
                ],
            },
        ),
    ]
