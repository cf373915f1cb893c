"""The lag of the loop beside each heartbeat of a worker. The table has a few rows."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """Add the column, empty. Workers of earlier versions leave it so."""

    dependencies = [("notifications", "0011_priority")]
    operations = [
        migrations.AddField(
            "heartbeat", "loop_lag", models.FloatField(null=True, verbose_name="lag of the loop in seconds")
        ),
    ]
