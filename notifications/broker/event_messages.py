"""How a worker treats the messages of event tasks, because each is the only copy of a request.

Celery drops a message that it cannot decode, with one line in the log, and a worker ends at one that has another form
than Celery's. It shows the arguments of tasks in its own events (`worker -E`) and in the answer to `inspect`.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

from celery import Task, bootsteps
from celery.exceptions import InvalidTaskError
from celery.worker.request import Request

logger = logging.getLogger("notifications.tasks")

HIDDEN = "(hidden)"
UndecodedHandler = Callable[[str, Any], None]
"""Stores the payload of an event; called with the name of the task and the payload."""


class PrivateRequest(Request):
    """A request of a task whose arguments are personal: they are in no event and in no answer to `inspect`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not isinstance(self.args, list | tuple) or not isinstance(self.kwargs, dict):
            raise InvalidTaskError("the arguments of an event have another form")  # Celery would drop it in the pool

    @property
    def argsrepr(self) -> str:
        """A text instead of the arguments."""
        return HIDDEN

    @property
    def kwargsrepr(self) -> str:
        """A text instead of the keyword arguments."""
        return HIDDEN

    def info(self, safe: bool = False) -> Any:
        """Return what `inspect` shows, without the arguments.

        Args:
            safe: Ignored: the arguments are never shown.
        """
        return {**super().info(safe=True), "args": HIDDEN, "kwargs": HIDDEN}


class EventTask(Task[Any, Any]):
    """The base of the tasks that handle events."""

    abstract = True
    Request = f"{PrivateRequest.__module__}:{PrivateRequest.__qualname__}"


def keep_undecoded_events(app: Any, tasks: frozenset[str], handle: UndecodedHandler) -> None:
    """Let a worker pass on the events that Celery cannot read, instead of dropping them or ending.

    Args:
        app: The Celery app of the worker, before its consumer is built.
        tasks: Names of the event tasks.
        handle: Called in the consumer's thread. If it raises, the message returns to the queue.
    """

    class KeepUndecodedEvents(bootsteps.Step):
        """Replaces the consumer's handlers of messages, and of those that cannot be read."""

        def __init__(self, consumer: Any, **kwargs: Any) -> None:
            super().__init__(consumer, **kwargs)
            drop_undecoded, drop_invalid = consumer.on_decode_error, consumer.on_invalid_task
            drop_unknown, create_task_handler = consumer.on_unknown_message, consumer.create_task_handler

            def on_decode_error(message: Any, error: Exception) -> None:
                if not _keep(message, tasks, handle):
                    drop_undecoded(message, error)

            def on_invalid_task(body: Any, message: Any, error: Exception) -> None:
                if not _keep(message, tasks, handle):
                    drop_invalid(body, message, error)

            def on_unknown_message(body: Any, message: Any) -> None:
                if not _keep(message, tasks, handle):
                    drop_unknown(body, message)

            def create_guarded_handler(*args: Any, **kwargs: Any) -> Callable[[Any], None]:
                handle_message = create_task_handler(*args, **kwargs)

                def on_task_received(message: Any) -> None:
                    try:
                        handle_message(message)
                    except (AttributeError, LookupError, TypeError, ValueError):
                        # Celery unpacks the body and reads headers without a check.
                        if message.acknowledged or not _keep(message, tasks, handle):
                            raise

                return on_task_received

            consumer.on_decode_error, consumer.on_invalid_task = on_decode_error, on_invalid_task
            consumer.on_unknown_message, consumer.create_task_handler = on_unknown_message, create_guarded_handler

    app.steps["consumer"].add(KeepUndecodedEvents)


def _keep(message: Any, tasks: frozenset[str], handle: UndecodedHandler) -> bool:
    """Handle the message if it is an event's. Return whether it is."""
    task = _task_name(message)
    if task not in tasks:
        return False
    try:
        handle(task, read_payload(message.body))
    except Exception as error:
        logger.warning("event requeued: %s", type(error).__name__, extra={"event": "event.put_back"})
        message.requeue()
    else:
        message.ack()
    return True


def _task_name(message: Any) -> str:
    """Return the name of a message's task: a header; in protocol 1, a field of the body."""
    fields = message.headers if isinstance(message.headers, dict) and "task" in message.headers else None
    if fields is None:
        with contextlib.suppress(ValueError, RecursionError):
            fields = json.loads(_body_text(message.body))
    name = fields.get("task") if isinstance(fields, dict) else None
    return name if isinstance(name, str) else ""


def read_payload(body: Any) -> Any:
    """Return the payload of a message as plain JSON, without Celery's own types; the body as text if it has no payload.

    Args:
        body: The body of a message. In protocol 2: arguments, keyword arguments and options. In protocol 1: an object
            with the fields args and kwargs.
    """
    text = _body_text(body)
    try:
        fields = json.loads(text)
        args, kwargs, *_ = (fields.get("args", []), fields.get("kwargs", {})) if isinstance(fields, dict) else fields
    except (ValueError, TypeError, RecursionError):
        return text
    if not isinstance(args, list):
        return text
    if len(args) == 1 and not kwargs:
        return args[0]
    only_payload = not args and isinstance(kwargs, dict) and set(kwargs) == {"payload"}
    return kwargs["payload"] if only_payload else {"args": args, "kwargs": kwargs}


def _body_text(body: Any) -> str:
    return bytes(body).decode("utf-8", "replace") if isinstance(body, bytes | bytearray | memoryview) else str(body)
