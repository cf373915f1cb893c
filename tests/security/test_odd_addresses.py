"""Odd addresses of the admin: any query string gets an answer, never a server error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from urllib.parse import quote

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.test import Client

from notifications.models import (
    DueJob,
    NotificationEvent,
    NotificationRecord,
    RejectedRequest,
    ReplayOperation,
    UserNotificationChannel,
)
from notifications.replay.criteria import Criteria
from notifications.replay.operations import create_operation
from tests.support.factories import make_record

pytestmark = pytest.mark.django_db

MODELS = (NotificationRecord, UserNotificationChannel, RejectedRequest, ReplayOperation, DueJob, NotificationEvent)
ODD_VALUES = (
    *("", "a\0b", "\x85\u2028\u202e", "-1", "1.5", "nan", "٣", "9223372036854775808", "9" * 5000, "[]"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59", "2026-02-30", "dead,\0", "("),
)
ODD_BYTES = ("%ED%A0%80",)
LIST_PARAMETERS = (
    *("q", "p", "o", "e", "all", "now", "code", "channel", "trace", "preview", "_facets", "_popup", "_to_field"),
    *("_changelist_filters", "created_at__year", "created_at__month", "created_at__day", "\0", "created_at__\0"),
    *("replay_operation", "unknown", "user__username", "pk", "id__regex"),
)
LOOKUPS = ("", "__isnull", "__range", "__year", "__regex")
FORM_PARAMETERS = (
    *("statuses", "codes", "channel", "changed_from", "changed_until", "created_from", "created_until", "user"),
    *("dedupe_key", "trace_id", "preview_id", "search", "force", "rate", "reason", "counted", "as_of", "\0"),
)


@pytest.fixture
def odd_client(admin_client: Client) -> Client:
    """A superuser who sees a response instead of the exception behind a server error."""
    admin_client.raise_request_exception = False
    return admin_client


def failures(client: Client, addresses: Iterator[str]) -> list[str]:
    """Return the addresses that answer with a server error."""
    return [address for address in addresses if client.get(address).status_code >= 500]


def queries(names: tuple[str, ...]) -> Iterator[str]:
    for name, value in product(names, ODD_VALUES):
        yield f"?{quote(name)}={quote(value)}"
    for name, value in product(names, ODD_BYTES):
        yield f"?{quote(name)}={value}"
    yield "?" + "&".join(f"{quote(name)}=1&{quote(name)}=%00" for name in names)


@pytest.mark.parametrize("model", MODELS)
def test_no_query_string_of_a_list_is_a_server_error(
    odd_client: Client, make_user: Callable[..., User], model: type
) -> None:
    make_record(user=make_user("reader"))
    options = apps.get_model("notifications", model.__name__)._meta
    fields = tuple(field.attname for field in options.concrete_fields)
    url = f"/admin/notifications/{options.model_name}/"

    assert failures(odd_client, (url + query for query in queries(LIST_PARAMETERS))) == []
    odd = ("\0", "(")
    lookups = (f"{url}?{name}{lookup}={quote(value)}" for name, lookup, value in product(fields, LOOKUPS, odd))
    assert failures(odd_client, lookups) == []


def test_no_query_string_of_a_replay_is_a_server_error(odd_client: Client) -> None:
    url = "/admin/notifications/replayoperation/add/"
    assert failures(odd_client, (url + query for query in queries(FORM_PARAMETERS))) == []


def test_no_query_string_of_a_page_is_a_server_error(odd_client: Client, admin_user: User) -> None:
    record = make_record(user=admin_user)
    channel = UserNotificationChannel.objects.create(user=admin_user, channel="feishu")
    operation = create_operation(Criteria(), admin_user, "reason")
    names = ("_changelist_filters", "_to_field", "p")
    pages = [
        *("/admin/", "/admin/notifications/"),
        *(f"/admin/notifications/notificationrecord/{record.pk}/{view}/" for view in ("change", "history", "delete")),
        *(f"/admin/notifications/usernotificationchannel/{channel.pk}/{view}/" for view in ("change", "history")),
        "/admin/notifications/usernotificationchannel/add/",
        f"/admin/notifications/replayoperation/{operation.pk}/change/",
        f"/admin/notifications/replayoperation/{operation.pk}/history/",
    ]
    assert failures(odd_client, (page + query for page in pages for query in queries(names))) == []
    ids = ("%00", "0", "-1", "9" * 5000, "_00", "%ED%A0%80", quote("٣"))
    addresses = (
        f"/admin/notifications/{model.__name__.lower()}/{key}/{view}/"
        for model, key, view in product(MODELS, ids, ("change", "history", "delete", "cancel"))
    )
    assert failures(odd_client, addresses) == []
