"""Requests generated from the OpenAPI document get the documented responses and never a 500."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import schemathesis
from django.contrib.auth.models import User
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.test import Client
from hypothesis import HealthCheck, settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from smartmate.wsgi import application
from tests.support.canaries import ADDRESS, TOKEN, find_canaries
from tests.support.depth import PART
from tests.support.factories import make_record

pytestmark = pytest.mark.django_db

TRUE = [
    *(not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance),
    *(response_headers_conformance, negative_data_rejection, unsupported_method),
]
"""Checks of every response. Valid data may be rejected, because the document does not contain the providers' rules."""
EXAMPLES = 800 // PART
"""Random requests per operation with parameters, in addition to requests with boundary values."""
document = schemathesis.openapi.from_wsgi("/api/openapi.json", application)
document.config.generation.with_security_parameters = (
    False  # each request is signed in; test_permissions.py tests other users
)
TAKES_VALUES = ("saveChannel", "listNotifications")


@pytest.fixture
def call(make_user: Callable[..., User], change: Callable[..., None]) -> Iterator[Callable[[Any], Any]]:
    """Return a function that sends a case as a signed-in user with a channel and returns the response."""
    change(PROVIDERS={"feishu": "notifications.providers.memory.MemoryProvider"}, TEST_INTERVAL=0.01)
    user = make_user("alice", webhook_url=ADDRESS)
    for status in ("sent", "dead", "failed", "skipped", "pending", "sending"):
        make_record(status, user_id=user.pk)
    client, codes = Client(), Counter[int]()
    client.force_login(user)
    client.get("/api/channels/feishu")
    cookies = {name: morsel.value for name, morsel in client.cookies.items()}
    signals = (request_started, request_finished)
    for signal in signals:  # the receivers would close the connection that holds the test's transaction
        signal.disconnect(close_old_connections)
    operation = ""

    def send(case: Any) -> Any:
        nonlocal operation
        operation = case.operation.definition.raw["operationId"]
        if case.meta.generation.mode.is_positive and isinstance(case.body, dict) and case.body.get("webhook_url"):
            # Random data rarely passes the provider's rules, so some requests use a valid address.
            case.body["webhook_url"] = ADDRESS if len(case.body["webhook_url"]) % 2 else case.body["webhook_url"]
        answer = case.call(cookies=cookies, headers={"X-CSRFToken": cookies["csrftoken"]})
        codes[answer.status_code] += 1
        return answer

    try:
        yield send
    finally:
        for signal in signals:
            signal.connect(close_old_connections)
    assert codes[204 if operation == "deleteChannel" else 200]
    if operation in TAKES_VALUES:
        assert codes[422]
        assert codes.total() >= EXAMPLES


@document.parametrize()
@hypothesis_settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_each_response_matches_the_openapi_document(case: Any, call: Callable[[Any], Any]) -> None:
    answer = call(case)

    case.validate_response(answer, checks=TRUE)
    assert find_canaries(answer.content) == []
    assert TOKEN not in answer.text
