"""The endpoints for a user's own Feishu channel."""

from __future__ import annotations

import logging

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from ninja import Router, Status
from pydantic import SecretStr

from notifications.channels.rules import (
    ChannelSettings,
    InvalidChannel,
    apply_changes,
    encrypt_validated,
    validate_combination,
)
from notifications.channels.test_message import send_own_test_message
from notifications.models import UserNotificationChannel
from notifications.security.secrets import Secret
from notifications.user_keys import plain_user_key
from notifications.web_api.errors import Conflict, FieldProblem
from notifications.web_api.schemas import ChannelIn, ChannelOut, Errors, TestOut
from notifications.web_api.session_auth import user_of

logger = logging.getLogger("notifications.web_api")
router = Router(tags=["channel"])

FEISHU = "feishu"
ERROR_RESPONSES = {401: Errors, 403: Errors}
RETRY_AFTER_HEADER = {"description": "Seconds to wait.", "required": True, "schema": {"type": "integer", "minimum": 1}}


@router.get("/feishu", operation_id="getChannel", summary="Show the channel", response={200: ChannelOut, 401: Errors})
def show(request: HttpRequest) -> ChannelOut:
    """Show the channel. A channel that was never saved has `configured: false`."""
    row = _find_channel(user_of(request))
    return ChannelOut.from_channel(row or UserNotificationChannel(channel=FEISHU, enabled=False))


@router.put(
    "/feishu",
    operation_id="saveChannel",
    summary="Save the channel",
    response={200: ChannelOut, 400: Errors, **ERROR_RESPONSES, 413: Errors, 422: Errors},
)
def save(request: HttpRequest, data: ChannelIn) -> ChannelOut:
    """Save the given fields. Omitted fields keep their value. A new address, token or authentication ends a pause."""
    user, given = user_of(request), data.model_fields_set
    webhook_url, bearer_token = _encrypt_secrets(data)
    with transaction.atomic():
        row, _created = UserNotificationChannel.objects.select_for_update().get_or_create(
            user_id=user.pk, channel=FEISHU, label=""
        )
        wanted = ChannelSettings(
            enabled=data.enabled if "enabled" in given else None,
            auth_type=data.auth_type if "auth_type" in given and data.auth_type != row.auth_type else None,
            webhook_url=webhook_url,
            bearer_token=bearer_token,
        )
        if errors := list(validate_combination(wanted, row)):
            raise InvalidChannel(errors)
        row.save(update_fields=apply_changes(wanted, row))
    _log("saved", user, fields=sorted(given))
    return ChannelOut.from_channel(row)


@router.delete(
    "/feishu", operation_id="deleteChannel", summary="Delete the channel", response={204: None, **ERROR_RESPONSES}
)
def delete(request: HttpRequest) -> Status[None]:
    """Delete the channel with its secrets. Later notifications are skipped. Deleting a missing channel is no error."""
    user = user_of(request)
    UserNotificationChannel.objects.filter(user_id=user.pk, channel=FEISHU, label="").delete()
    _log("deleted", user)
    return Status(204, None)


@router.post(
    "/feishu/test",
    operation_id="testChannel",
    summary="Send a test message",
    response={200: TestOut, **ERROR_RESPONSES, 409: Errors, 429: Errors},
    openapi_extra={"responses": {429: {"headers": {"Retry-After": RETRY_AFTER_HEADER}}}},
)
def send_test(request: HttpRequest) -> TestOut:
    """Send one message now, in the same way as every notification, and return the result. It is not retried."""
    user = user_of(request)
    row = _find_channel(user)
    if row is None or not row.webhook_url:
        raise Conflict([("webhook_url", _("Enter an address first."))])
    if not row.enabled:
        raise Conflict([("enabled", _("Enable the channel first."))])
    return TestOut.from_record(send_own_test_message(user))


def _find_channel(user: AbstractBaseUser) -> UserNotificationChannel | None:
    return UserNotificationChannel.objects.filter(user_id=user.pk, channel=FEISHU, label="").first()


def _encrypt_secrets(data: ChannelIn) -> list[Secret | None]:
    # Errors of both fields are reported together.
    errors: list[FieldProblem] = []
    encrypted: list[Secret | None] = []
    for name in ("webhook_url", "bearer_token"):
        plain: SecretStr | None = getattr(data, name)
        try:
            value = plain.get_secret_value() if plain else ""
            encrypted.append(encrypt_validated(name, value, FEISHU) if name in data.model_fields_set else None)
        except InvalidChannel as error:
            errors += error.errors
    if errors:
        raise InvalidChannel(errors)
    return encrypted


def _log(action: str, user: AbstractBaseUser, **fields: object) -> None:
    extra = {"event": f"channel.{action}", "user_id": plain_user_key(user.pk), **fields}
    logger.info("channel of user %s %s", user.pk, action, extra=extra)
