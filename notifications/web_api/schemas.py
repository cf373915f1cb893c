"""Request and response bodies, as the OpenAPI document shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StrictBool

from notifications.channels.rules import MAX_SECRET_CHARACTERS
from notifications.content.error_messages import USER_ERROR_MESSAGES
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.security.address_secrets import mask_url
from notifications.security.log_redaction import redact_text
from notifications.security.secrets import SecretUnreadable, mask_key
from notifications.states import AuthType, Status, TestStatus

STATUSES_WITH_ERROR = (Status.FAILED, Status.DEAD, Status.SKIPPED)
"""Statuses that the last error explains."""


class FieldError(BaseModel):
    """One invalid field, or one error of the whole request."""

    field: str = Field(
        description="The name of the field, `body` for the whole body, or empty if no field caused the error."
    )
    message: str = Field(description="The reason, in the user's language.")


class Errors(BaseModel):
    """The response to a request that failed."""

    errors: list[FieldError]


def _optional(description: str, **options: Any) -> Any:
    return Field(None, description=description, json_schema_extra=_remove_default, **options)


def _remove_default(schema: dict[str, Any]) -> None:
    # An omitted field keeps its value, so the document must not show null as its default.
    schema.pop("default", None)


SecretInput = Annotated[SecretStr, Field(max_length=MAX_SECRET_CHARACTERS)]


class ChannelIn(BaseModel):
    """The new settings of the channel. Omitted fields keep their value."""

    model_config = ConfigDict(extra="forbid")

    enabled: StrictBool = _optional("True if messages are sent. True for a new channel.")
    webhook_url: SecretInput | None = _optional(
        "The webhook address of the flow. It is never returned in full. Null or empty deletes it.",
        examples=["https://www.feishu.cn/flow/api/trigger-webhook/0123456789abcdef"],
    )
    auth_type: AuthType = _optional("How the webhook request is authenticated. `none` for a new channel.")
    bearer_token: SecretInput | None = _optional(
        "The token for `bearer`. It is never returned. Null or empty deletes it."
    )


class ChannelOut(BaseModel):
    """A channel, without its secrets."""

    channel: str
    configured: bool = Field(description="True if an address is stored.")
    enabled: bool
    webhook_url_masked: str = Field(description="The stored address with its key masked.")
    auth_type: AuthType
    bearer_token_stored: bool
    paused: bool = Field(
        description="True if sending is paused: one response said that the endpoint or its token must be corrected."
    )
    paused_at: datetime | None
    pause_reason: str
    last_test_status: TestStatus = Field(description="`success`, `failed`, or empty for never.")
    last_test_error: str
    last_test_at: datetime | None

    @classmethod
    def from_channel(cls, row: UserNotificationChannel) -> ChannelOut:
        """Return the channel without its secrets."""
        return cls(
            channel=row.channel,
            configured=bool(row.webhook_url),
            enabled=row.enabled,
            webhook_url_masked=_masked_url(row),
            auth_type=AuthType(row.auth_type),
            bearer_token_stored=bool(row.bearer_token),
            paused=row.paused_at is not None,
            paused_at=row.paused_at,
            pause_reason=redact_text(row.pause_reason),
            last_test_status=TestStatus(row.last_test_status),
            last_test_error=redact_text(row.last_test_error),
            last_test_at=row.last_test_at,
        )


def _masked_url(row: UserNotificationChannel) -> str:
    try:
        return mask_url(row.webhook_url.reveal())
    except SecretUnreadable:
        return mask_key("?")


class DeliveryState(BaseModel):
    """The state of a notification, and the reason."""

    status: Status
    error_code: str = Field(description="A stable code of the last error. Empty if there is none.")
    problem: str = Field(
        description="The meaning of the code in the user's language. Empty for codes of custom providers."
    )

    @staticmethod
    def state_fields(record: NotificationRecord) -> dict[str, Any]:
        """Return the values of these fields. The record's error text is omitted, because it quotes the endpoint."""
        code = record.last_error_code if record.status in STATUSES_WITH_ERROR else ""
        return {"status": Status(record.status), "error_code": code, "problem": str(USER_ERROR_MESSAGES.get(code, ""))}


class TestOut(DeliveryState):
    """The result of a test message."""

    __test__ = False  # pytest would collect the class because of its name

    delivered: bool
    notification_id: int

    @classmethod
    def from_record(cls, record: NotificationRecord) -> TestOut:
        """Return the result that the record of the test message shows."""
        return cls(delivered=record.status == Status.SENT, notification_id=record.pk, **cls.state_fields(record))


class NotificationOut(DeliveryState):
    """One notification of the user."""

    id: int
    text: str = Field(description="The text of the message.")
    target_url: str = Field(description="The target of the link: a path on the product's site.")
    trigger_type: str
    priority: int = Field(description="From 0 (low) to 3 (urgent).")
    attempt_count: int
    max_attempts: int
    next_attempt_at: datetime | None
    created_at: datetime
    sent_at: datetime | None

    @classmethod
    def from_record(cls, record: NotificationRecord) -> NotificationOut:
        """Return the fields of a record that its user may see."""
        return cls(
            id=record.pk,
            text=record.fallback_text if record.fallback_used else record.summary_text,
            target_url=record.target_url,
            trigger_type=record.trigger_type,
            priority=record.priority,
            attempt_count=record.attempt_count,
            max_attempts=record.max_attempts,
            next_attempt_at=record.next_attempt_at,
            created_at=record.created_at,
            sent_at=record.sent_at,
            **cls.state_fields(record),
        )


class PageOut(BaseModel):
    """One page of notifications, newest first."""

    items: list[NotificationOut]
    next: int | None = Field(description="The value of `before` for the next page. Null on the last page.")
