"""The tables of this app. The rows decide; Redis and Celery messages hold only hints.

Modules import models from this package, not from its parts. `models` imports query sets, states, content and
security, and nothing above them.
"""

from notifications._moved import forward
from notifications.models.channels import UserNotificationChannel
from notifications.models.events import NotificationEvent
from notifications.models.monitoring import Alert, Counter, Heartbeat
from notifications.models.operations import DueJob, RejectedRequest, ReplayOperation
from notifications.models.records import DeliveryAttempt, NotificationRecord

__all__ = [
    "Alert",
    "Counter",
    "DeliveryAttempt",
    "DueJob",
    "Heartbeat",
    "NotificationEvent",
    "NotificationRecord",
    "RejectedRequest",
    "ReplayOperation",
    "UserNotificationChannel",
]

__getattr__ = forward(__name__, __name__, renamed={"Tally": "Counter"})
