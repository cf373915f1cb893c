"""Sends what became of notifications to an endpoint, as Standard Webhooks: a receiver of the signals.

Each event becomes a record, which is delivered like any other. Of these records nothing is told again
(`lifecycle/sql/write_events.sql`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from notifications.broker.nudge import nudge_on_commit
from notifications.conf import service_options
from notifications.conf.options import EVENTS_CHANNEL
from notifications.content.message import MessageContent
from notifications.exceptions import NotificationError
from notifications.ingest.insert import insert_requests
from notifications.ingest.payload import NotificationRequest
from notifications.models import UserNotificationChannel
from notifications.signals import RECORD_SIGNALS, RecordSignal
from notifications.states import Priority
from notifications.user_keys import plain_user_key

KIND_PREFIX = "notification."
"""Beginning of the kind of these records, and of the `type` that is sent. No kind of a caller has a dot."""
_UID = "notifications.events_endpoint"


class EventsEndpointMissing(NotificationError):
    """There is no endpoint without a user that has the label EVENTS_ENDPOINT."""


def connect_events_endpoint() -> None:
    """Connect the receiver to all signals if EVENTS_ENDPOINT is set. Each process calls this when it starts."""
    if service_options().events_endpoint:
        for signal in RECORD_SIGNALS.values():
            signal.connect(send_event, dispatch_uid=_UID)


def disconnect_events_endpoint() -> None:
    """Disconnect the receiver. For tests."""
    for signal in RECORD_SIGNALS.values():
        signal.disconnect(dispatch_uid=_UID)


def send_event(
    signal: RecordSignal, record_id: int, event_id: str, occurred_at: datetime, sender: object, **fields: Any
) -> None:
    """Store the message of an event in the transaction of the relay. An event that comes again is stored once.

    Args:
        signal: The signal.
        record_id: Id of the record.
        event_id: Id of the event.
        occurred_at: When the record changed.
        sender: The sender of the signal.
        fields: Its other arguments.

    Raises:
        EventsEndpointMissing: The endpoint does not exist. The relay tries again later.
    """
    options = service_options()
    endpoints = UserNotificationChannel.objects.filter(user=None, label=options.events_endpoint, channel=EVENTS_CHANNEL)
    endpoint_id = endpoints.values_list("pk", flat=True).first()
    if endpoint_id is None:
        raise EventsEndpointMissing
    data = {
        "event_id": event_id,
        "record_id": record_id,
        "occurred_at": occurred_at.isoformat(),
        **fields,
        "user_id": plain_user_key(fields["user_id"]),
    }
    request = NotificationRequest(
        user_id=None,
        endpoint_id=endpoint_id,
        channel=EVENTS_CHANNEL,
        preview_id="",
        dedupe_key=f"event:{event_id}",
        target_url="",
        kind=f"{KIND_PREFIX}{signal.name}",
        summary_text=signal.name,
        content=MessageContent(data=data).as_json(),
        order_key=f"event:{record_id}",  # the receiver gets the events of a record one after the other
        priority=Priority.LOW,  # messages to people come first
    )
    insert_requests([request], options=options)
    nudge_on_commit()
