"""Adds the indexes of ordered delivery, and the reason for which a record waits for an earlier one.

The indexes are built beside the requests. They have records with an order key only, so other records write to none of
them. The new reason changes no column: its choices are not in the database.
"""

from django.db import migrations, models
from django.utils.translation import gettext_lazy as _

from notifications.migrations._online import BuildIndex, BuildUniqueIndex

ORDERED = models.Q(("order_key", ""), _negated=True)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("notifications", "0014_events")]

    operations = [
        migrations.AlterField(
            "NotificationRecord",
            "hold_reason",
            models.CharField(
                verbose_name=_("held because"),
                max_length=16,
                choices=[
                    ("", _("not held")),
                    ("channel_paused", _("the channel is paused")),
                    ("endpoint_failing", _("the endpoint is failing and is being probed")),
                    ("rate_limited", _("the endpoint's rate limit")),
                    ("order", _("an earlier message of its order key")),
                ],
                blank=True,
                default="",
                db_default="",
                db_column="wait_reason",
            ),
        ),
        BuildUniqueIndex(
            "NotificationRecord",
            models.UniqueConstraint(
                fields=("channel", "order_key"),
                name="notification_order_in_flight",
                condition=models.Q(("status", "sending")) & ORDERED,
            ),
        ),
        BuildIndex(
            "NotificationRecord",
            models.Index(
                "channel",
                "order_key",
                models.ExpressionWrapper(models.Q(("round", 0)), output_field=models.BooleanField()),
                "id",
                name="notification_order",
                condition=models.Q(("next_attempt_at__isnull", False)) & ORDERED,
            ),
        ),
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=["channel", "order_key", "id"],
                name="notification_order_dead",
                condition=models.Q(("status", "dead")) & ORDERED,
            ),
        ),
    ]
