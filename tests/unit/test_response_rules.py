"""What responses mean: the rules against the responses of Feishu and Lark that we collected."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from hypothesis import given, strategies as st

from notifications.conf import ServiceOptions
from notifications.delivery.settlement import decide
from notifications.providers.attempt import normalize_result
from notifications.providers.base import SendResult
from notifications.providers.feishu.error_codes import CODE_RULES, FEISHU_RULES
from notifications.providers.http.messages import HttpResponse, _retry_after
from notifications.providers.response_rules import interpret_response
from notifications.providers.standard_webhooks import STANDARD_WEBHOOK_RULES
from notifications.states import Outcome, Status
from tests.support.claims import make_claim

SENT = ("success", "")
RATE_LIMITED = ("temporary_fail", "provider_rate_limited")
SERVER_ERROR = ("temporary_fail", "provider_5xx")
ENDPOINT_CONFIG = ("permanent_fail", "provider_config")
MESSAGE_REFUSED = ("permanent_fail", "payload_invalid")
OUTCOME_UNKNOWN = ("permanent_fail", "provider_timeout")
UNMAPPED_CODE = ("temporary_fail", "provider_unmapped")

OBSERVED_RESPONSES: list[tuple[int, str, int, tuple[str, str]]] = [
    # Code, an observed message, HTTP status, and the meaning that we chose.
    (0, "success", 200, SENT),
    (9499, "Bad Request", 200, MESSAGE_REFUSED),
    (9499, "Bad Request", 400, MESSAGE_REFUSED),
    (9499, "fail to parse content", 200, MESSAGE_REFUSED),
    (9499, "too many request", 200, RATE_LIMITED),
    (9499, "Too Many Requests", 400, RATE_LIMITED),
    (9499, "frequency limited psm[lark.oapi.app_platform_runtime]", 200, RATE_LIMITED),
    (9499, "request too frequent", 200, RATE_LIMITED),
    (9499, "rate limit exceeded", 200, RATE_LIMITED),
    (9499, "Request Throttled", 200, RATE_LIMITED),
    (9499, "请求过于频繁", 200, RATE_LIMITED),
    (9499, "request body over the limit of 20 KB", 200, MESSAGE_REFUSED),
    (10002, "text is nil", 200, MESSAGE_REFUSED),
    (19036, "the message is larger than 30 KB", 200, MESSAGE_REFUSED),
    (11232, "frequency limited psm[lark.oapi.app_platform_runtime]appID[1500]", 200, RATE_LIMITED),
    (2200, "internal error", 200, SERVER_ERROR),
    (11246, "parse card json err", 200, MESSAGE_REFUSED),
    (11246, "ErrCode: 11310; unsupported type of block", 200, MESSAGE_REFUSED),
    (19001, "param invalid: incoming webhook access token invalid", 200, ENDPOINT_CONFIG),
    (19002, "params error, msg_type need", 200, MESSAGE_REFUSED),
    (19007, "Bot Not Enabled", 200, ENDPOINT_CONFIG),
    (19021, "sign match fail or timestamp is not within one hour from current time", 200, ENDPOINT_CONFIG),
    (19022, "Ip Not Allowed", 200, ENDPOINT_CONFIG),
    (19024, "Key Words Not Found", 200, ENDPOINT_CONFIG),
    (99991400, "request trigger frequency limit", 429, RATE_LIMITED),
    (99991400, "request trigger frequency limit", 400, RATE_LIMITED),
    (800005652, "too frequent", 200, RATE_LIMITED),
    (800005649, "bad Bearer", 200, ENDPOINT_CONFIG),
    (800005650, "IP not in list", 200, ENDPOINT_CONFIG),
    (800004509, "webhook trigger workflow is disabled", 200, ENDPOINT_CONFIG),
    (800005647, "over 4 MB", 200, MESSAGE_REFUSED),
    (800006003, "not JSON", 200, MESSAGE_REFUSED),
    (800005646, "self loop", 200, ENDPOINT_CONFIG),
    (230001, "invalid parameter (ext=...)", 400, MESSAGE_REFUSED),
    (230020, "frequency limit (ext=chat rate limit)", 400, RATE_LIMITED),
    (230049, "message is being sent", 400, OUTCOME_UNKNOWN),
    (230002, "not in group", 400, ENDPOINT_CONFIG),
    (230006, "bot ability off", 400, ENDPOINT_CONFIG),
    (230013, "user out of scope", 400, ENDPOINT_CONFIG),
    (230027, "permission", 400, ENDPOINT_CONFIG),
    (230035, "send denied, muted", 400, ENDPOINT_CONFIG),
    (230025, "too long", 400, MESSAGE_REFUSED),
    (230022, "sensitive", 400, MESSAGE_REFUSED),
    (230028, "DLP", 400, MESSAGE_REFUSED),
    (230099, "card create failed", 400, MESSAGE_REFUSED),
    (10500, "internal", 200, UNMAPPED_CODE),
    (10101, "token", 200, UNMAPPED_CODE),
    (99991663, "token", 400, UNMAPPED_CODE),
    (424242, "anything", 200, UNMAPPED_CODE),
    (424242, "anything", 404, UNMAPPED_CODE),
    (424242, "anything", 503, SERVER_ERROR),
    (424242, "anything", 429, RATE_LIMITED),
    (424242, "anything", 401, ("permanent_fail", "provider_auth_failed")),
]

CODES_WITHOUT_RULE = (0, 10500, 10101, 99991663, 424242)


def respond(body: str, status: int = 200, **headers: Any) -> HttpResponse:
    """Return a response with this body. An underscore in the name of a header stands for a hyphen."""
    lower = {name.replace("_", "-").lower(): str(value) for name, value in headers.items()}
    return HttpResponse(status=status, body=body.encode(), retry_after=_retry_after(lower), headers=lower)


class TestFeishu:
    def test_each_observed_response_has_its_meaning(self) -> None:
        results = [
            interpret_response(respond(f'{{"code": {code}, "msg": "{message}"}}', status), None, FEISHU_RULES)
            for code, message, status, _ in OBSERVED_RESPONSES
        ]

        meanings = [
            (*row[:3], (result.outcome, result.error_code))
            for row, result in zip(OBSERVED_RESPONSES, results, strict=True)
        ]
        assert meanings == OBSERVED_RESPONSES

    def test_every_rule_has_an_observed_response(self) -> None:
        observed = {code for code, _, _, _ in OBSERVED_RESPONSES}

        assert {rule.code for rule in CODE_RULES} == observed - set(CODES_WITHOUT_RULE)

    def test_every_rule_names_its_apis_and_its_evidence(self) -> None:
        assert [rule for rule in CODE_RULES if not re.match(r"[ABCD]( [ABCD])* [HML]\b", rule.source)] == []

    def test_the_remedy_is_in_the_error_text(self) -> None:
        result = interpret_response(respond('{"code": 19022, "msg": "Ip Not Allowed"}'), None, FEISHU_RULES)

        assert result.error_message == "code 19022: Ip Not Allowed (add our IP address to the allowlist, or disable it)"

    def test_http_200_without_an_error_code_is_a_success(self) -> None:
        bodies = ['{"StatusCode": 0, "StatusMessage": "success"}', "[]", "null", "", "ok", "{}"]

        outcomes = {body: interpret_response(respond(body), None, FEISHU_RULES).outcome for body in bodies}

        assert outcomes == dict.fromkeys(bodies, Outcome.SUCCESS)

    def test_a_word_and_json_are_no_web_page_whatever_their_type(self) -> None:
        bodies = [
            "",
            "ok",
            '"ok"',
            "code: 0",
            "1 < 2",
            "{}",
            '{"code": 0, "msg": "<html>"}',
            '{"data": {"tip": "a<b>"}}',
        ]

        results = {
            body: interpret_response(respond(body, Content_Type="text/html"), None, FEISHU_RULES) for body in bodies
        }

        assert {body: result.outcome for body, result in results.items()} == dict.fromkeys(bodies, Outcome.SUCCESS)

    def test_a_code_is_found_in_every_form_that_gateways_give_it(self) -> None:
        bodies = [
            *('{"code": "19001"}', '{"code": " 19001 "}', '{"code": 19001.0}', '{"code": "19001.0"}'),
            *('{"StatusCode": 19001}', '{"code": null, "StatusCode": 19001}', '{"code": "", "StatusCode": "19001"}'),
            *('\ufeff{"code": 19001}', ' \r\n{"code": 19001}', '{"Code": 19001}', '{"CODE": "19001"}'),
            '"{\\"code\\": 19001}"',
            *(f'{{"code": {blank}, "StatusCode": 19001}}' for blank in ("false", "[]", "{}", '" "')),
        ]

        codes = {body: interpret_response(respond(body), None, FEISHU_RULES).error_code for body in bodies}

        assert codes == dict.fromkeys(bodies, "provider_config")

    def test_a_response_that_cannot_be_the_vendors_is_repeated_and_marked_as_maybe_delivered(self) -> None:
        bodies = [
            *("<html>Sign in</html>", "\ufeff <!DOCTYPE html>", "<?xml version='1.0'?><a/>", '{"code": 19', "[1,"),
            *(
                'data: {"code": 19001}',
                'callback({"code": 0})',
                '"{\\"code\\": 19"',
                "Warning: old certificate\n<HTML lang=zh>",
                "moved <script>location='/login'</script>",
                "\x01\x02",
                "a\x03",
            ),
        ]
        responses = {body: respond(body) for body in bodies}
        responses["a page by its type"] = respond("Please <a href=/login>sign in</a>", Content_Type="text/HTML; q=1")
        responses["br"] = dataclasses.replace(respond(""), unknown_coding="br")

        for name, response in responses.items():
            result = interpret_response(response, None, FEISHU_RULES)

            assert (result.outcome, result.error_code) == UNMAPPED_CODE, name
            assert (result.max_attempts, result.maybe_delivered) == (3, True), name
            assert "response" in result.error_message, name

    def test_a_web_page_with_an_error_status_has_the_meaning_of_its_status(self) -> None:
        results = {
            status: interpret_response(respond("<html>", status), None, FEISHU_RULES).error_code
            for status in (404, 429, 502)
        }

        assert results == {404: "payload_invalid", 429: "provider_rate_limited", 502: "provider_5xx"}

    def test_a_code_that_is_not_a_number_is_unmapped(self) -> None:
        for code in ('{"a": 1}', "true", '"no"', "0.5", "1e999", "NaN"):
            result = interpret_response(respond(f'{{"code": {code}}}'), None, FEISHU_RULES)

            assert (result.error_code, result.unmapped) == ("provider_unmapped", "-1"), code

    def test_a_message_that_is_still_being_sent_is_dead_and_maybe_delivered(self) -> None:
        response = respond('{"code": 230049, "msg": "message is being sent"}')
        result = normalize_result(interpret_response(response, None, FEISHU_RULES))

        assert decide(make_claim(), result, ServiceOptions()) == (Status.DEAD, None)
        assert "the message may have arrived" in result.error_message


class TestUnmappedCode:
    def test_is_dead_after_three_attempts(self) -> None:
        result = interpret_response(respond('{"code": 424242}'), None, FEISHU_RULES)

        statuses = [decide(make_claim(number, 5), result, ServiceOptions())[0] for number in range(1, 6)]

        assert statuses == [Status.FAILED, Status.FAILED, Status.DEAD, Status.DEAD, Status.DEAD]

    def test_its_limit_never_exceeds_the_records_own_limit(self) -> None:
        for limit, record_limit, status in [(3, 1, "dead"), (9, 2, "failed"), (1, 5, "dead"), (0, 2, "failed")]:
            result = SendResult(outcome=Outcome.TEMPORARY_FAIL, max_attempts=limit)
            row = f"limit {limit}, limit of the record {record_limit}"

            assert decide(make_claim(1, record_limit), result, ServiceOptions())[0] == status, row
            assert decide(make_claim(record_limit, record_limit), result, ServiceOptions())[0] == Status.DEAD, row


def test_a_web_page_is_no_concern_of_receivers_whose_body_has_no_meaning() -> None:
    assert interpret_response(respond("<html>"), None, STANDARD_WEBHOOK_RULES).outcome == Outcome.SUCCESS


def test_standard_webhooks_use_the_status_only() -> None:
    expected = {
        200: SENT,
        204: SENT,
        410: ENDPOINT_CONFIG,
        401: ("permanent_fail", "provider_auth_failed"),
        429: RATE_LIMITED,
        408: SERVER_ERROR,
        421: SERVER_ERROR,
        425: SERVER_ERROR,
        502: SERVER_ERROR,
        404: MESSAGE_REFUSED,
        302: MESSAGE_REFUSED,
        999: MESSAGE_REFUSED,
    }

    results = {
        status: interpret_response(respond('{"code": 19001}', status), None, STANDARD_WEBHOOK_RULES)
        for status in expected
    }

    assert {status: (result.outcome, result.error_code) for status, result in results.items()} == expected


def test_a_receiver_that_refuses_our_clock_is_told_from_one_that_refuses_our_secret() -> None:
    clock = [
        "Message timestamp too old",
        "Message timestamp too new",
        '{"error": "timestamp_too_old"}',
        '{"detail": "Timestamp outside the tolerance zone"}',
        "webhook-timestamp expired",
        "the timestamp is not within 300 seconds",
        "Timestamp is in the future",
        "stale timestamp",
        "request refused: clock skew",
        "<Code>RequestTimeTooSkewed</Code>",
        "时间戳已过期",
    ]
    other = ["", "No matching signature found", "Invalid Signature Headers", "missing timestamp", '{"timestamp": 17}']

    for status in (400, 401, 403, 422):
        for body in clock:
            result = interpret_response(respond(body, status), None, STANDARD_WEBHOOK_RULES)
            meaning = (result.outcome, result.error_code, result.project_at_fault, result.holds_endpoint)
            assert meaning == ("temporary_fail", "provider_auth_failed", True, True), (status, body)
            assert "check the clock" in result.error_message, (status, body)
        for body in other:
            result = interpret_response(respond(body, status), None, STANDARD_WEBHOOK_RULES)
            assert (result.outcome, result.holds_endpoint) == ("permanent_fail", False), (status, body)
    assert interpret_response(respond(clock[0], 200), None, STANDARD_WEBHOOK_RULES).outcome == Outcome.SUCCESS
    assert interpret_response(respond(clock[0], 500), None, STANDARD_WEBHOOK_RULES).error_code == "provider_5xx"


def test_every_table_repeats_the_statuses_that_ask_for_it() -> None:
    for table in (FEISHU_RULES, STANDARD_WEBHOOK_RULES):
        for status in (408, 421, 425, 429, 500, 503, 599):
            assert interpret_response(respond("", status), None, table).outcome == Outcome.TEMPORARY_FAIL, status
        for wait, outcome in ((0.0, Outcome.PERMANENT_FAIL), (120.0, Outcome.TEMPORARY_FAIL)):
            response = dataclasses.replace(respond("", 413), retry_after=wait)
            result = interpret_response(response, None, table)
            assert (result.outcome, result.retry_after) == (outcome, wait), "413 is temporary if it names a time"


class TestRetryAfter:
    def test_the_longer_time_of_both_headers_is_used(self) -> None:
        rows: list[tuple[dict[str, Any], float]] = [
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
        ]

        assert [(headers, respond("", **headers).retry_after) for headers, _ in rows] == rows

    @given(st.text(max_size=40))
    def test_no_header_value_raises(self, value: str) -> None:
        assert _retry_after({"retry-after": value}) >= 0

    def test_the_delay_is_at_most_the_setting(self) -> None:
        for value in ("1e9", "inf", "Fri, 31 Dec 9999 23:59:59 GMT"):
            result = interpret_response(respond("", 429, Retry_After=value), None, FEISHU_RULES)

            assert decide(make_claim(), result, ServiceOptions(retry_after_max=3600)) == (Status.FAILED, 3600), value
