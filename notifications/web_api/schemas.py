"""What goes in and what comes out, as the OpenAPI document shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool

from notifications.channels.rules import MAX_SECRET_CHARACTERS
from notifications.content.error_messages import ERROR_MESSAGES
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.security.log_redaction import redact_text
from notifications.security.secrets import SecretUnreadable, mask_key, mask_url
from notifications.states import AuthType, Status, TestStatus

STOPPED = (Status.FAILED, Status.DEAD, Status.SKIPPED)
"""Statuses of which the last error says why."""


class FieldError(BaseModel):
    """One thing that is wrong."""

    field: str = Field(description="Which field, `body` for all of it, or empty where it is no field's fault.")
    message: str = Field(description="What is wrong, in the user's language.")


class Errors(BaseModel):
    """The answer to whatever was not done."""

    errors: list[FieldError]


def _optional(description: str, **more: Any) -> Any:
    return Field(None, description=description, json_schema_extra=_no_default, **more)


def _no_default(schema: dict[str, Any]) -> None:
    # What is left out stays as it is; the document must not promise that it becomes null.
    schema.pop("default", None)


Writable = Annotated[SecretStr, Field(max_length=MAX_SECRET_CHARACTERS)]


class ChannelIn(BaseModel):
    """What the channel is to be. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    enabled: StrictBool = _optional("Whether messages are sent. True for a new channel.")
    webhook_url: Writable | None = _optional(
        "The address of the flow's webhook. It is never given back. Null or empty deletes it.",
        examples=["https://www.feishu.cn/flow/api/trigger-webhook/0123456789abcdef"],
    )
    auth_type: AuthType = _optional("How the webhook is called. `none` for a new channel.")
    bearer_token: Writable | None = _optional(
        "The token for `bearer`. It is never given back. Null or empty deletes it."
    )


class ChannelOut(BaseModel):
    """A channel, without its secrets."""

    channel: str
    configured: bool = Field(description="Whether an address is stored.")
    enabled: bool
    webhook_url_masked: str = Field(description="Enough of the stored address to tell it from another.")
    auth_type: AuthType
    bearer_token_stored: bool
    paused: bool = Field(description="Whether sending was halted because the endpoint kept failing.")
    paused_at: datetime | None
    pause_reason: str
    last_test_status: TestStatus = Field(description="`success`, `failed`, or empty for never.")
    last_test_error: str
    last_test_at: datetime | None

    @classmethod
    def of(cls, row: UserNotificationChannel) -> ChannelOut:
        """Return what may be shown of a row."""
        return cls(
            channel=row.channel,
            configured=bool(row.webhook_url),
            enabled=row.enabled,
            webhook_url_masked=_masked(row),
            auth_type=AuthType(row.auth_type),
            bearer_token_stored=bool(row.bearer_token),
            paused=row.paused_at is not None,
            paused_at=row.paused_at,
            pause_reason=redact_text(row.pause_reason),
            last_test_status=TestStatus(row.last_test_status),
            last_test_error=redact_text(row.last_test_error),
            last_test_at=row.last_test_at,
        )


def _masked(row: UserNotificationChannel) -> str:
    try:
        return mask_url(row.webhook_url.reveal())
    except SecretUnreadable:
        return mask_key("?")


class Trouble(BaseModel):
    """How a notification stands, and why."""

    status: Status
    error_code: str = Field(description="A stable word for why it failed; empty where it did not.")
    problem: str = Field(description="The same as a sentence in the user's language, where there is one.")

    @staticmethod
    def fields(record: NotificationRecord) -> dict[str, Any]:
        """Return these fields of a record. Its own error text is not among them: it quotes the endpoint."""
        code = record.last_error_code if record.status in STOPPED else ""
        return {"status": Status(record.status), "error_code": code, "problem": str(ERROR_MESSAGES.get(code, ""))}


class TestOut(Trouble):
    """What came of a test message."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    delivered: bool
    notification_id: int

    @classmethod
    def of(cls, record: NotificationRecord) -> TestOut:
        """Return what is said of the message's record."""
        return cls(delivered=record.status == Status.SENT, notification_id=record.pk, **cls.fields(record))


class NotificationOut(Trouble):
    """One notification to the user."""

    id: int
    text: str = Field(description="What the message says.")
    target_url: str = Field(description="Where it leads: a path of the product's site.")
    trigger_type: str
    attempt_count: int
    max_attempts: int
    next_attempt_at: datetime | None
    created_at: datetime
    sent_at: datetime | None

    @classmethod
    def of(cls, record: NotificationRecord) -> NotificationOut:
        """Return what its user may see of a record."""
        return cls(
            id=record.pk,
            text=record.fallback_text if record.fallback_used else record.summary_text,
            target_url=record.target_url,
            trigger_type=record.trigger_type,
            attempt_count=record.attempt_count,
            max_attempts=record.max_attempts,
            next_attempt_at=record.next_attempt_at,
            created_at=record.created_at,
            sent_at=record.sent_at,
            **cls.fields(record),
        )


class PageOut(BaseModel):
    """Some notifications, newest first."""

    items: list[NotificationOut]
    next: int | None = Field(description="The value of `before` for those that follow; null at the end.")
