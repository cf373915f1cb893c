"""The provider of Feishu and Lark custom bots."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from notifications.conf import ServiceOptions, service_options
from notifications.content.json_encoding import encode_json
from notifications.providers.attempt import attempt_send
from notifications.providers.base import Provider
from notifications.providers.feishu.bot import MAX_MESSAGE_BYTES, FeishuBotProvider, sign_message
from notifications.providers.http.connection import Connection
from notifications.states import Outcome
from notifications.testing.conformance import REQUEST, ProviderConformance
from notifications.testing.sandbox.server import Sandbox

KEY = "canary0123456789abcdef0123456789"
PATH = "/open-apis/bot/v2/hook/"
SECRET = "canary-signing-secret-7b1d"
GOOD = f"https://open.feishu.cn{PATH}{KEY}"


class TestFeishuBotConformance(ProviderConformance):
    """The promises of every webhook provider, and those of custom bots."""

    key = KEY
    path = PATH
    auth_type = "signature"
    secret = SECRET

    def make(self, options: ServiceOptions) -> Provider:
        return FeishuBotProvider(options)

    def post_message(self, sandbox: Sandbox, message_format: str, text: str = REQUEST.message_text) -> dict[str, Any]:
        """Send one message in this format and return the body that arrived."""
        provider = self.make(self.options(sandbox, feishu_bot_format=message_format))

        attempt_send(provider, dataclasses.replace(REQUEST, message_text=text), self.endpoint(sandbox))

        body: dict[str, Any] = sandbox.deliveries()[-1].body
        return body

    def test_the_signature_is_valid(self, sandbox: Sandbox) -> None:
        sandbox.sign(KEY, SECRET)

        result = self.send(sandbox, "ok")

        assert result.outcome == Outcome.SUCCESS
        [delivery] = sandbox.deliveries()
        assert delivery.accepted
        assert abs(int(delivery.body["timestamp"]) - time.time()) < 60

    def test_a_wrong_secret_fails_after_a_second_signature(self, sandbox: Sandbox) -> None:
        sandbox.sign(KEY, "another")

        result = self.send(sandbox, "ok")

        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "provider_config")
        assert [delivery.answer for delivery in sandbox.deliveries()] == ["code:19021"] * 2

    @pytest.mark.parametrize("hours", [2, -2])
    def test_a_wrong_clock_is_corrected_by_the_receivers_date(self, sandbox: Sandbox, hours: int) -> None:
        sandbox.sign(KEY, SECRET)
        sandbox.ahead = hours * 3600

        result = self.send(sandbox, "ok")

        assert result.outcome == Outcome.SUCCESS
        assert [delivery.accepted for delivery in sandbox.deliveries()] == [False, True]

    def test_without_a_secret_there_is_no_signature_and_no_second_request(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "code:19021")

        attempt_send(self.make(self.options(sandbox)), REQUEST, self.endpoint(sandbox, auth_type="none"))

        [delivery] = sandbox.deliveries()
        assert not {"sign", "timestamp"} & set(delivery.body)

    def test_the_signature_is_not_stored(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "ok")

        assert sandbox.deliveries()[0].body["sign"] not in repr(result)
        assert result.request_payload["msg_type"] == "interactive"

    def test_a_refused_card_is_posted_as_a_text_in_the_same_attempt(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "code:11246", "ok")

        assert [delivery.body["msg_type"] for delivery in sandbox.deliveries()] == ["interactive", "text"]
        assert result.outcome == Outcome.SUCCESS
        assert result.response_payload["card"]["code"] == 11246
        assert result.response_payload["text"]["code"] == 0
        assert result.request_payload["msg_type"] == "text"

    def test_a_refused_text_is_not_posted_again(self, sandbox: Sandbox) -> None:
        result = self.send(sandbox, "code:11246")

        assert len(sandbox.deliveries()) == 2
        assert (result.outcome, result.error_code) == (Outcome.PERMANENT_FAIL, "payload_invalid")

    def test_only_a_card_is_replaced_by_a_text(self, sandbox: Sandbox) -> None:
        sandbox.script(KEY, "code:11246")

        self.post_message(sandbox, "text")
        self.post_message(sandbox, "post")

        assert [delivery.body["msg_type"] for delivery in sandbox.deliveries()] == ["text", "post"]

    def test_one_attempt_can_correct_the_clock_and_replace_the_card(self, sandbox: Sandbox) -> None:
        sandbox.sign(KEY, SECRET)
        sandbox.ahead = 7200

        result = self.send(sandbox, "code:11246", "ok")

        assert result.outcome == Outcome.SUCCESS
        assert len(sandbox.deliveries()) == 3

    def test_all_requests_of_an_attempt_share_one_deadline(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sandbox.script(KEY, "code:11246", "ok")
        provider = FeishuBotProvider(self.options(sandbox))
        send, deadlines = Connection.send, []

        def spy(self: Connection, data: bytes, *, timeout: float, deadline: float) -> Any:
            deadlines.append(deadline)
            return send(self, data, timeout=timeout, deadline=deadline)

        monkeypatch.setattr(Connection, "send", spy)
        attempt_send(provider, REQUEST, self.endpoint(sandbox))

        assert len(deadlines) == 2
        assert len(set(deadlines)) == 1

    def test_a_card_has_title_text_and_button(self, sandbox: Sandbox) -> None:
        body = self.post_message(sandbox, "card")

        text, action = body["card"]["elements"]
        assert body["msg_type"] == "interactive"
        assert body["card"]["header"]["title"]["content"] == "SmartMate 日程调整建议"
        assert text["text"] == {"tag": "plain_text", "content": REQUEST.message_text}
        assert action["actions"][0]["url"] == "https://app.example.com/meetings/9"

    def test_a_post_has_title_text_and_link(self, sandbox: Sandbox) -> None:
        content = self.post_message(sandbox, "post")["content"]["post"]["zh_cn"]

        assert content["title"] == "SmartMate 日程调整建议"
        assert content["content"][0] == [{"tag": "text", "text": REQUEST.message_text}]
        assert content["content"][1][0]["href"] == "https://app.example.com/meetings/9"

    def test_a_text_contains_no_mention(self, sandbox: Sandbox) -> None:
        for mention in ('<at user_id="all">x</at>', "< AT id=all></ at>", "</at>"):
            text = self.post_message(sandbox, "text", f"1 < 2 {mention}")["content"]["text"]

            assert "1 < 2 " in text, mention
            assert "<at" not in text.lower().replace(" ", "").replace("/", ""), mention
            assert text.endswith("查看并确认调整: https://app.example.com/meetings/9")

    def test_a_text_that_is_cut_ends_in_an_ellipsis_and_is_logged(
        self, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        shortest = self.post_message(sandbox, "post", ".")
        message = {name: shortest[name] for name in ("msg_type", "content")}  # without the signature
        longest = "字" * ((MAX_MESSAGE_BYTES - len(encode_json(message)) + 1) // 3)
        cases = {longest: longest, f"{longest}字字": None, f"{longest[:-9]}{'🇨🇳' * 9}": None}
        for given, posted in cases.items():
            caplog.clear()
            message = self.post_message(sandbox, "post", given)

            [shown] = message["content"]["post"]["zh_cn"]["content"][0]
            assert shown["text"] == posted or (posted is None and shown["text"].endswith("…"))
            assert given.startswith(shown["text"].rstrip("…"))
            assert shown["text"].count("🇨") == shown["text"].count("🇳"), "no half of a flag"
            assert [getattr(line, "event", "") for line in caplog.records].count("message.cut") == (given != posted)

    def test_every_format_stays_below_the_vendors_size_limit(self, sandbox: Sandbox) -> None:
        for message_format in ("text", "post", "card"):
            body = self.post_message(sandbox, message_format, "𝕏" * 10_000)

            size = len(json.dumps(body, ensure_ascii=False).encode())
            assert 12_000 < size < 20 * 1024, message_format


def test_the_signature_has_the_documented_key_and_an_empty_message() -> None:
    message = sign_message({"msg_type": "text"}, "demo", 1599360473.9)

    # The key is the timestamp, a line break and the secret; the message is empty (the vendor's example in Java).
    digest = hmac.new(b"1599360473\ndemo", b"", hashlib.sha256).digest()
    assert message == {"msg_type": "text", "timestamp": "1599360473", "sign": base64.b64encode(digest).decode()}


class TestAddress:
    def test_bot_addresses_are_accepted(self) -> None:
        urls = [GOOD, GOOD.replace("feishu.cn", "larksuite.com"), GOOD.replace("feishu.cn", "larkoffice.com")]

        assert [url for url in urls if FeishuBotProvider().address_problem(url)] == []

    def test_other_addresses_are_refused_with_a_reason(self) -> None:
        urls = [
            GOOD.replace("https", "http"),
            GOOD.replace("open.", "www."),
            GOOD.replace("open.", ""),
            GOOD.replace("open.feishu.cn", "evil.example"),
            GOOD.replace("open.feishu.cn", "open.feishu.cn.evil.example"),
            GOOD.replace("open.feishu.cn", "openxfeishu.cn"),
            GOOD.replace("open.feishu.cn", "open.feishu.cn:443"),
            GOOD.replace("open.feishu.cn", "u@open.feishu.cn"),
            GOOD.replace("/v2/", "/v1/"),
            GOOD.replace(PATH, "/flow/api/trigger-webhook/"),
            GOOD + "/x",
            GOOD + "?a=1",
            GOOD + "#a",
            f"https://open.feishu.cn{PATH}",
        ]

        assert [url for url in urls if not FeishuBotProvider().address_problem(url)] == []


def test_the_check_reports_an_unknown_format() -> None:
    options = dataclasses.replace(service_options(), feishu_bot_format="poem")

    assert [code for code, _ in options.problems()] == ["E009"]
