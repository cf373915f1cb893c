"""Gives a record the shape of a general message: endpoints without a user, keys, title, kind and content.

Each column may be NULL or has a default in the database, so PostgreSQL rewrites no table, and workers of the last
version go on. Indexes of notification_records are built beside the requests. The table of endpoints has a row for each
recipient, not for each message: its new indexes take a second for a million rows, and claims only read it.
"""

from django.conf import settings
from django.contrib.postgres.operations import AddConstraintNotValid, ValidateConstraint
from django.db import migrations, models
from django.utils.translation import gettext_lazy as _

from notifications.migrations._online import BuildIndex, WithShortLocks


def short_text(name: str, length: int = 191) -> models.CharField:
    return models.CharField(verbose_name=name, max_length=length, blank=True, default="", db_default="")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL), ("notifications", "0012_loop_lag")]

    operations = [
        WithShortLocks(
            migrations.AddField(
                "UserNotificationChannel",
                "label",
                models.CharField(
                    verbose_name=_("label"),
                    max_length=191,
                    blank=True,
                    default="",
                    db_default="",
                    help_text=_(
                        "Tells several endpoints of a user on one channel apart. An endpoint without a user is named "
                        "by it, such as on-call."
                    ),
                ),
            ),
            migrations.AlterField(
                "UserNotificationChannel",
                "user",
                models.ForeignKey(
                    to=settings.AUTH_USER_MODEL,
                    on_delete=models.CASCADE,
                    related_name="notification_channels",
                    verbose_name=_("user"),
                    null=True,
                    blank=True,
                ),
            ),
            AddConstraintNotValid(
                "UserNotificationChannel",
                models.CheckConstraint(
                    condition=models.Q(("user__isnull", False)) | models.Q(("label", ""), _negated=True),
                    name="endpoint_has_owner_or_label",
                ),
            ),
            migrations.AddConstraint(
                "UserNotificationChannel",
                models.UniqueConstraint(
                    fields=("user", "channel", "label"),
                    name="endpoint_of_user",
                    condition=models.Q(("user__isnull", False)),
                ),
            ),
            migrations.AddConstraint(
                "UserNotificationChannel",
                models.UniqueConstraint(
                    fields=("label", "channel"),
                    name="endpoint_without_user",
                    condition=models.Q(("user__isnull", True)),
                ),
            ),
            migrations.RemoveConstraint("UserNotificationChannel", "one_channel_per_user"),
            migrations.AddField(
                "NotificationRecord",
                "endpoint",
                models.ForeignKey(
                    to="notifications.usernotificationchannel",
                    on_delete=models.DO_NOTHING,
                    db_constraint=False,
                    db_index=False,
                    null=True,
                    related_name="+",
                    verbose_name=_("endpoint"),
                ),
            ),
            migrations.AddField("NotificationRecord", "request_key", short_text(_("key"))),
            migrations.AddField("NotificationRecord", "order_key", short_text(_("order key"))),
            migrations.AddField("NotificationRecord", "kind", short_text(_("kind"), 64)),
            migrations.AddField("NotificationRecord", "title", short_text(_("title"), 255)),
            migrations.AddField(
                "NotificationRecord",
                "content",
                models.JSONField(verbose_name=_("content"), null=True, editable=False),
            ),
            migrations.AlterField(
                "NotificationRecord",
                "target_url",
                models.CharField(verbose_name=_("link"), max_length=1024, blank=True),
            ),
            migrations.AlterField(
                "NotificationRecord",
                "user",
                models.ForeignKey(
                    to=settings.AUTH_USER_MODEL,
                    on_delete=models.DO_NOTHING,
                    db_constraint=False,
                    db_index=False,
                    null=True,
                    related_name="+",
                    verbose_name=_("user"),
                ),
            ),
            column="content",
        ),
        ValidateConstraint("UserNotificationChannel", "endpoint_has_owner_or_label"),
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=["endpoint", "id"],
                name="notification_held_at_endpoint",
                condition=models.Q(
                    ("endpoint__isnull", False), ("hold_reason__in", ["channel_paused", "endpoint_failing"])
                ),
            ),
        ),
        BuildIndex(
            "NotificationRecord",
            models.Index(
                fields=["request_key", "id"],
                name="notification_request_key",
                condition=models.Q(("request_key", ""), _negated=True),
            ),
        ),
    ]
