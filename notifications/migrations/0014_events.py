"""The table of events that wait for receivers of signals. It is new, refers to no other table and locks none."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('notifications', '0013_general_message'),
    ]

    operations = [
        migrations.CreateModel(
            name='NotificationEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(choices=[('delivered', 'delivered'), ('died', 'died'), ('skipped', 'skipped'), ('held', 'held'), ('released', 'released'), ('replayed', 'replayed')], max_length=16, verbose_name='signal')),
                ('payload', models.JSONField(verbose_name='arguments')),
                ('received_by', models.JSONField(default=list, verbose_name='taken by')),
                ('occurred_at', models.DateTimeField(verbose_name='time')),
                ('attempts', models.IntegerField(default=0, verbose_name='attempts')),
                ('next_attempt_at', models.DateTimeField(null=True, verbose_name='next attempt')),
                ('error', models.CharField(blank=True, max_length=191, verbose_name='error')),
                ('record', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='notifications.notificationrecord', verbose_name='notification')),
            ],
            options={
                'verbose_name': 'signal to send',
                'verbose_name_plural': 'signals to send',
                'db_table': 'notification_events',
                'default_permissions': ('view',),
                'indexes': [models.Index(condition=models.Q(('next_attempt_at__isnull', False)), fields=['next_attempt_at', 'id'], name='event_due'), models.Index(fields=['record', 'id'], name='event_of_record')],
            },
        ),
    ]
