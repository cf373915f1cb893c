"""A user's own Feishu channel."""

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
from notifications.web_api.errors import Conflict, Problem
from notifications.web_api.schemas import ChannelIn, ChannelOut, Errors, TestOut
from notifications.web_api.session_auth import user_of

logger = logging.getLogger("notifications.web_api")
router = Router(tags=["channel"])

FEISHU = "feishu"
REFUSALS = {401: Errors, 403: Errors}
SECONDS = {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}


@router.get("/feishu", operation_id="getChannel", summary="Show the channel", response={200: ChannelOut, 401: Errors})
def show(request: HttpRequest) -> ChannelOut:
    """Show the channel. One that was never saved is not configured."""
    row = _mine(user_of(request))
    return ChannelOut.of(row or UserNotificationChannel(channel=FEISHU, enabled=False))


@router.put(
    "/feishu",
    operation_id="saveChannel",
    summary="Save the channel",
    response={200: ChannelOut, 400: Errors, **REFUSALS, 413: Errors, 422: Errors},
)
def save(request: HttpRequest, data: ChannelIn) -> ChannelOut:
    """Save what is given; what is left out stays as it is. A new address, token or authentication ends a pause."""
    user, given = user_of(request), data.model_fields_set
    webhook_url, bearer_token = _sealed(data)
    with transaction.atomic():
        row, _created = UserNotificationChannel.objects.select_for_update().get_or_create(
            user_id=user.pk, channel=FEISHU
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
    return ChannelOut.of(row)


@router.delete("/feishu", operation_id="deleteChannel", summary="Delete the channel", response={204: None, **REFUSALS})
def delete(request: HttpRequest) -> Status[None]:
    """Delete the channel with its secrets. Messages are then skipped. Nothing happens where there is none."""
    user = user_of(request)
    UserNotificationChannel.objects.filter(user_id=user.pk, channel=FEISHU).delete()
    _log("deleted", user)
    return Status(204, None)


@router.post(
    "/feishu/test",
    operation_id="testChannel",
    summary="Send a test message",
    response={200: TestOut, **REFUSALS, 409: Errors, 429: Errors},
    openapi_extra={"responses": {429: {"headers": {"Retry-After": SECONDS}}}},
)
def try_out(request: HttpRequest) -> TestOut:
    """Send one message now, the way every notification goes, and tell what came of it. It is not tried again."""
    user = user_of(request)
    row = _mine(user)
    if row is None or not row.webhook_url:
        raise Conflict([("webhook_url", _("Enter an address first."))])
    if not row.enabled:
        raise Conflict([("enabled", _("Switch the channel on first."))])
    return TestOut.of(send_own_test_message(user))


def _mine(user: AbstractBaseUser) -> UserNotificationChannel | None:
    return UserNotificationChannel.objects.filter(user_id=user.pk, channel=FEISHU).first()


def _sealed(data: ChannelIn) -> list[Secret | None]:
    errors: list[Problem] = []
    sealed: list[Secret | None] = []
    for name in ("webhook_url", "bearer_token"):
        plain: SecretStr | None = getattr(data, name)
        try:
            value = plain.get_secret_value() if plain else ""
            sealed.append(encrypt_validated(name, value, FEISHU) if name in data.model_fields_set else None)
        except InvalidChannel as refused:
            errors += refused.errors
    if errors:
        raise InvalidChannel(errors)
    return sealed


def _log(done: str, user: AbstractBaseUser, **facts: object) -> None:
    logger.info("channel of user %s %s", user.pk, done, extra={"event": f"channel.{done}", "user_id": user.pk, **facts})
