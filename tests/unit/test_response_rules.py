"""What answers mean: the table against the facts we collected about Feishu and Lark, row by row."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from notifications.conf import ServiceOptions
from notifications.delivery.settlement import decide
from notifications.providers.base import SendResult, normalize_result
from notifications.providers.feishu.error_codes import CODE_RULES, FEISHU_RULES
from notifications.providers.http.client import HttpResponse, _retry_after
from notifications.providers.response_rules import CodeRule, interpret_response
from notifications.providers.standard_webhooks import STANDARD_WEBHOOK_RULES
from notifications.states import Outcome, Status
from tests.unit.test_decide import claimed

SENT = ("success", "")
BUSY = ("temporary_fail", "provider_rate_limited")
TROUBLE = ("temporary_fail", "provider_5xx")
CONFIG = ("permanent_fail", "provider_config")
CONTENT = ("permanent_fail", "payload_invalid")
UNKNOWN = ("permanent_fail", "provider_timeout")
UNMAPPED = ("temporary_fail", "provider_unmapped")

FACTS: list[tuple[int, str, int, tuple[str, str]]] = [
    # The rows of our notes on the vendor's codes: code, a message that was seen, HTTP status, and the class we chose.
    (0, "success", 200, SENT),
    (9499, "Bad Request", 200, CONTENT),
    (9499, "Bad Request", 400, CONTENT),
    (9499, "fail to parse content", 200, CONTENT),
    (9499, "too many request", 200, BUSY),
    (9499, "Too Many Requests", 400, BUSY),
    (11232, "frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]", 200, BUSY),
    (2200, "internal error", 200, TROUBLE),
    (11246, "parse card json err", 200, CONTENT),
    (11246, "ErrCode: 11310; unsupported type of block", 200, CONTENT),
    (19001, "param invalid: incoming webhook access token invalid", 200, CONFIG),
    (19002, "params error, msg_type need", 200, CONTENT),
    (19007, "Bot Not Enabled", 200, CONFIG),
    (19021, "sign match fail or timestamp is not within one hour from current time", 200, CONFIG),
    (19022, "Ip Not Allowed", 200, CONFIG),
    (19024, "Key Words Not Found", 200, CONFIG),
    (99991400, "request trigger frequency limit", 429, BUSY),
    (99991400, "request trigger frequency limit", 400, BUSY),
    (800005652, "too frequent", 200, BUSY),
    (800005649, "bad Bearer", 200, CONFIG),
    (800005650, "IP not in list", 200, CONFIG),
    (800004509, "webhook trigger workflow is disabled", 200, CONFIG),
    (800005647, "over 4 MB", 200, CONTENT),
    (800006003, "not JSON", 200, CONTENT),
    (800005646, "self loop", 200, CONFIG),
    (230001, "invalid parameter (ext=...)", 400, CONTENT),
    (230020, "frequency limit (ext=chat rate limit)", 400, BUSY),
    (230049, "message is being sent", 400, UNKNOWN),
    (230002, "not in group", 400, CONFIG),
    (230006, "bot ability off", 400, CONFIG),
    (230013, "user out of scope", 400, CONFIG),
    (230027, "permission", 400, CONFIG),
    (230035, "send denied, muted", 400, CONFIG),
    (230025, "too long", 400, CONTENT),
    (230022, "sensitive", 400, CONTENT),
    (230028, "DLP", 400, CONTENT),
    (230099, "card create failed", 400, CONTENT),
    (10500, "internal", 200, UNMAPPED),
    (10101, "token", 200, UNMAPPED),
    (99991663, "token", 400, UNMAPPED),
    (424242, "anything", 200, UNMAPPED),
    (424242, "anything", 404, UNMAPPED),
    (424242, "anything", 503, TROUBLE),
    (424242, "anything", 429, BUSY),
    (424242, "anything", 401, ("permanent_fail", "provider_auth_failed")),
]

NO_ROW = (0, 10500, 10101, 99991663, 424242)


def answer(body: str, status: int = 200, **headers: Any) -> HttpResponse:
    made = {name.replace("_", "-").lower(): str(value) for name, value in headers.items()}
    return HttpResponse(status=status, body=body.encode(), retry_after=_retry_after(made), headers=made)


class TestFeishu:
    @pytest.mark.parametrize(("code", "message", "status", "meaning"), FACTS)
    def test_each_code_has_the_meaning_of_our_notes(
        self, code: int, message: str, status: int, meaning: tuple[str, str]
    ) -> None:
        result = interpret_response(answer(f'{{"code": {code}, "msg": "{message}"}}', status), None, FEISHU_RULES)

        assert (result.outcome, result.error_code) == meaning

    def test_every_row_is_in_our_notes(self) -> None:
        assert {row.code for row in CODE_RULES} == {code for code, _, _, meaning in FACTS if code not in NO_ROW}

    @pytest.mark.parametrize("row", CODE_RULES, ids=lambda row: str(row.code))
    def test_every_row_says_where_it_is_from(self, row: CodeRule) -> None:
        assert row.source[0] in "ABCD"
        assert set(row.source.split(";")[0].split()) & {"H", "M", "L"}

    def test_what_a_person_has_to_do_is_in_the_error(self) -> None:
        result = interpret_response(answer('{"code": 19022, "msg": "Ip Not Allowed"}'), None, FEISHU_RULES)

        assert result.error_message == "code 19022: Ip Not Allowed (add our IP address to the allowlist, or disable it)"

    @pytest.mark.parametrize("body", ['{"StatusCode": 0, "StatusMessage": "success"}', "[]", "null", "", "ok", "{}"])
    def test_success_has_many_faces(self, body: str) -> None:
        assert interpret_response(answer(body), None, FEISHU_RULES).outcome == Outcome.SUCCESS

    @pytest.mark.parametrize("body", ['{"code": "19001"}', '{"StatusCode": 19001}'])
    def test_a_code_is_read_however_it_is_written(self, body: str) -> None:
        assert interpret_response(answer(body), None, FEISHU_RULES).error_code == "provider_config"

    def test_a_code_that_is_no_number_is_no_success(self) -> None:
        result = interpret_response(answer('{"code": {"a": 1}}'), None, FEISHU_RULES)

        assert (result.error_code, result.unmapped) == ("provider_unmapped", "-1")

    def test_a_message_that_is_being_sent_is_left_to_a_person(self) -> None:
        result = normalize_result(
            interpret_response(answer('{"code": 230049, "msg": "message is being sent"}'), None, FEISHU_RULES)
        )

        assert decide(claimed(), result, ServiceOptions()) == (Status.DEAD, None)
        assert "the message may have arrived" in result.error_message


class TestUnmapped:
    def test_is_tried_three_times_and_then_dead_with_its_code(self) -> None:
        result = interpret_response(answer('{"code": 424242}'), None, FEISHU_RULES)

        ends = [decide(claimed(number, 5), result, ServiceOptions())[0] for number in range(1, 6)]

        assert ends == [Status.FAILED, Status.FAILED, Status.DEAD, Status.DEAD, Status.DEAD]

    @pytest.mark.parametrize(
        ("cap", "limit", "status"), [(3, 1, "dead"), (9, 2, "failed"), (1, 5, "dead"), (0, 2, "failed")]
    )
    def test_a_cap_never_gives_more_than_the_records_own_budget(self, cap: int, limit: int, status: str) -> None:
        result = SendResult(outcome=Outcome.TEMPORARY_FAIL, max_attempts=cap)

        assert decide(claimed(1, limit), result, ServiceOptions())[0] == status
        assert decide(claimed(limit, limit), result, ServiceOptions())[0] == Status.DEAD


class TestWebhook:
    @pytest.mark.parametrize(
        ("status", "meaning"),
        [
            (200, SENT),
            (204, SENT),
            (410, CONFIG),
            (401, ("permanent_fail", "provider_auth_failed")),
            (429, BUSY),
            (502, TROUBLE),
            (404, CONTENT),
            (302, CONTENT),
            (999, CONTENT),
        ],
    )
    def test_only_the_status_counts(self, status: int, meaning: tuple[str, str]) -> None:
        result = interpret_response(answer('{"code": 19001}', status), None, STANDARD_WEBHOOK_RULES)

        assert (result.outcome, result.error_code) == meaning


class TestWaiting:
    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, 0),
            ({"Retry_After": "30"}, 30),
            ({"Retry_After": "1.5"}, 1.5),
            ({"x_ogw_ratelimit_reset": "7"}, 7),
            ({"Retry_After": "3", "x_ogw_ratelimit_reset": "7"}, 7),
            ({"Retry_After": "9", "x_ogw_ratelimit_reset": "7"}, 9),
            ({"Retry_After": "soon", "x_ogw_ratelimit_reset": "7"}, 7),
            ({"Retry_After": "-5"}, 0),
            ({"Retry_After": "nan"}, 0),
            ({"Retry_After": ""}, 0),
            ({"Retry_After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0),
            ({"Retry_After": "Mon, 01 Jan 0001 00:00:00 -0000"}, 0),
        ],
    )
    def test_both_headers_are_read_and_the_longer_counts(self, headers: dict[str, Any], seconds: float) -> None:
        assert answer("", **headers).retry_after == seconds

    @given(st.text(max_size=40))
    def test_no_header_breaks_a_proven_send(self, value: str) -> None:
        assert _retry_after({"retry-after": value}) >= 0

    @pytest.mark.parametrize("value", ["1e9", "inf", "Fri, 31 Dec 9999 23:59:59 GMT"])
    def test_no_wait_is_longer_than_the_setting(self, value: str) -> None:
        result = interpret_response(answer("", 429, Retry_After=value), None, FEISHU_RULES)

        assert decide(claimed(), result, ServiceOptions(retry_after_max=3600)) == (Status.FAILED, 3600)
