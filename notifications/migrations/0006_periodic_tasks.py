"""Adds a choice, which Django keeps in the state only: no statement reaches the database."""

from django.db import migrations, models
from django.utils.translation import gettext_lazy as _


class Migration(migrations.Migration):
    dependencies = [("notifications", "0005_replaced_texts")]

    operations = [
        migrations.AlterField(
            "Heartbeat",
            "kind",
            models.CharField(
                verbose_name=_("kind"),
                max_length=16,
                choices=[
                    ("beat", _("beat")),
                    ("sweep", _("sweep")),
                    ("worker", _("worker process")),
                    ("task", _("periodic task")),
                ],
            ),
        ),
    ]
