"""What other code may listen for.

Six signals say what became of a notification: `delivered`, `died`, `skipped`, `held`, `released`, `replayed`. Their
receivers are called by the processes that deliver, after the change was committed, at least once each, and in order for
each notification. docs/howto/signals.md describes when.

The sender is the model `NotificationRecord`. Each has these keyword arguments:

- `record_id`: id of the record.
- `event_id`: text that is the same whenever this event is sent again, and that no other event has.
- `occurred_at`: when the record changed, a `datetime` with a time zone.
- `channel`: name of the channel.
- `user_id`: id of the user; None if the record is addressed to an endpoint without a user.
- `endpoint_id`: id of the endpoint that the record is addressed to; None if it goes to the user's own endpoint.
- `request_key`: the key of the caller of `notify`, the same for all recipients; empty for other requests.
- `dedupe_key`: the key of the record.
- `error_code`: the record's last error code; empty after a delivery, and while there was no error.
- `round`: 0, plus 1 for each replay.
- `hold_reason`: why it is held: `channel_paused` or `endpoint_failing`; empty for the other signals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.dispatch import Signal


class RecordSignal(Signal):
    """One of the signals that say what became of a notification.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def live_receivers(self, sender: Any) -> list[tuple[Callable[..., Any], bool]]:
        """Return the receivers that `send` would call, in its order, and whether each is asynchronous.

        `send_robust` would not do: each receiver is called in a transaction of its own, and those that have taken an
        event are not called again because another one failed.

        Args:
            sender: The sender of the signal.
        """
        if not self.receivers:  # spares the lock
            return []
        synchronous, asynchronous = self._live_receivers(sender)
        return [*((receiver, False) for receiver in synchronous), *((receiver, True) for receiver in asynchronous)]


delivered = RecordSignal("delivered")
"""The endpoint accepted the message."""

died = RecordSignal("died")
"""It is `dead`: no attempt follows. An operator can replay it."""

skipped = RecordSignal("skipped")
"""It is not sent on purpose: no recipient, channel switched off, cancelled, expired."""

held = RecordSignal("held")
"""It waits for its endpoint, which is paused or failing. A held record whose probe fails is not announced again."""

released = RecordSignal("released")
"""A held record may be sent again. One that is delivered as a probe of its endpoint is `delivered` without it."""

replayed = RecordSignal("replayed")
"""It is sent again, with all its attempts. `round` is the new one."""

RECORD_SIGNALS = {signal.name: signal for signal in (delivered, died, skipped, held, released, replayed)}
"""The signals that say what became of a notification, by name."""

unmapped_answer = Signal()
"""An endpoint answered with a code that we have no meaning for. Connect your alerts here.

Sent once in each process for a channel and code, outside of any transaction, with `channel`, `code`, `message` (what
the attempt says of it, free of secrets) and `record_id`. A receiver that fails is logged and harms no delivery.
"""
