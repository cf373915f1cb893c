"""The JSON fields that webhooks receive."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import pytest

from notifications.conf import service_options
from notifications.providers.feishu.base_automation import FeishuBaseProvider
from notifications.providers.feishu.flow import FeishuFlowProvider
from notifications.providers.standard_webhooks import StandardWebhookProvider
from notifications.providers.webhook_base import WebhookProvider
from notifications.testing.conformance import REQUEST


@pytest.mark.parametrize("provider_class", [FeishuFlowProvider, FeishuBaseProvider, StandardWebhookProvider])
def test_a_number_that_javascript_rounds_has_its_digits_beside_it(provider_class: type[WebhookProvider]) -> None:
    fields = ("notification_id", "user_id", "target_id")
    exact = (1, 2**53 - 1, 1 - 2**53)
    rounded = (2**53, 2**53 + 1, 2**63 - 1, -(2**53) - 1)
    provider = provider_class(service_options())

    for field in fields:
        for value in (*exact, *rounded):
            sent = provider.fields(dataclasses.replace(REQUEST, **cast("Any", {field: value})))
            texts = {name: text for name, text in sent.items() if name.endswith("_str")}
            assert sent[field] == value, (field, value)
            assert texts == ({f"{field}_str": str(value)} if value in rounded else {}), (field, value)


@pytest.mark.parametrize("provider_class", [FeishuFlowProvider, FeishuBaseProvider, StandardWebhookProvider])
def test_a_user_key_that_is_a_text_is_sent_as_it_is(provider_class: type[WebhookProvider]) -> None:
    provider = provider_class(service_options())

    for key in ("0190163d-8694-739b-aea5-966c26f8ad91", "9007199254740993", None):
        sent = provider.fields(dataclasses.replace(REQUEST, user_id=key))
        assert (sent["user_id"], "user_id_str" in sent) == (key, False)
