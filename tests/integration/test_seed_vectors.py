"""Every recorded case of the Go service: ours does the same, or the right thing where the Go service was wrong.

SEED_VECTORS_DIR names another folder of vectors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from notifications.conf import ServiceOptions, service_options
from notifications.content.links import contains_external_link
from notifications.content.rendering import build_message_text, normalize_message_template
from notifications.content.text import trim, truncate_text
from notifications.delivery.locks import lock_key
from notifications.delivery.retry_policy import retry_delay
from notifications.ingest.payload import parse_payload
from notifications.ingest.validation import InvalidNotification
from notifications.providers.base import SendRequest

pytest.register_assert_rewrite("tests.support.go_rules")

from tests.support.go_rules import check_case, fail_without_rule  # noqa: E402
from tests.support.go_vectors import Case, moment, read_cases  # noqa: E402

FOLDER = Path(os.environ.get("SEED_VECTORS_DIR") or Path(__file__).parent.parent / "vectors")
CASES = list(read_cases(FOLDER))

SKIP = {
    "store-hook": "depends on the calls the Go service makes to its store",
    "int64-overflow": "a float of seconds does not overflow",
    "invalid-utf8": "lone bytes cannot be in a Python str",
}


@pytest.mark.django_db
@pytest.mark.parametrize("case", CASES, ids=str)
def test_result_is_the_go_services_or_the_right_one(case: Case) -> None:
    for tag in sorted(case.tags & SKIP.keys()):
        pytest.skip(f"{tag}: {SKIP[tag]}")
    if case.file not in FILES:
        pytest.fail(f"{FOLDER / case.file}.json: no rule for this file. Known: {', '.join(sorted(FILES))}")

    FILES[case.file](case)


def test_built_in_text_is_the_go_services() -> None:
    assert service_options().fallback_text == "我为你生成了一份日程调整建议，请回到系统确认是否应用。"


def backoff(case: Case) -> None:
    given, expected = case.given, case.expected
    options = ServiceOptions(
        retry_base_delay=given["retry_base_delay_seconds"], retry_max_delay=given["retry_max_delay_seconds"]
    )

    delay = retry_delay(given["attempt_count"], options)

    assert delay == expected["delay_seconds"]
    assert options.retry_base_delay == expected["effective_base_seconds"]
    assert options.retry_max_delay == expected["effective_max_seconds"]
    assert moment(given["now"]) + timedelta(seconds=delay) == moment(expected["next_retry_at"])


def options_of(case: Case) -> None:
    made = ServiceOptions(**{name.removesuffix("_seconds"): value for name, value in case.given.items()})

    assert {name: getattr(made, name.removesuffix("_seconds")) for name in case.expected} == case.expected


def truncate(case: Case) -> None:
    assert truncate_text(case.given["value"], case.given["limit"]) == case.expected


def contains_link(case: Case) -> None:
    wrong = "seed-defect" in case.tags  # the Go service missed a link, or found one where there is none

    assert contains_external_link(case.given) is (case.expected is not wrong)


def template(case: Case) -> None:
    given, expected = case.given, dict(case.expected)
    if "seed-defect" in case.tags:
        if "false-positive" in case.tags:
            expected |= {"summary_text": trim(given["summary_text"]), "fallback_used": False}
        elif case.tags & {"link-not-detected", "fallback-link"}:
            expected |= {"summary_text": "", "fallback_used": True}
        else:
            fail_without_rule(case)
    if "fallback-link" in case.tags and expected["fallback_used"]:
        expected["fallback_text"] = service_options().fallback_text
    runes = ServiceOptions(summary_max_runes=given["summary_max_runes"]).summary_max_runes

    made = normalize_message_template(given["summary_text"], given["fallback_text"], runes)

    assert made._asdict() == expected


def lock_key_of(case: Case) -> None:
    assert lock_key(case.given["channel"], case.given["dedupe_key"]) == case.expected


def send_request(case: Case) -> None:
    record, expected = case.given, dict(case.expected["request"])
    url = trim(record["target_url"])
    if "seed-defect" in case.tags:
        if "invisible-summary" in case.tags:
            expected["message_text"] = f"{trim(record['fallback_text'])}\n{url}"
        elif "fallback-link" in case.tags:
            expected["message_text"] = f"{service_options().fallback_text}\n{url}"
        elif "no-link" in case.tags:
            expected["message_text"] += f"\n{url}"
        else:
            fail_without_rule(case)

    text, fallback_used = build_message_text(
        summary=record["summary_text"],
        fallback=record["fallback_text"],
        fallback_used=record["fallback_used"],
        target_url=record["target_url"],
    )
    same = (*("user_id", "trigger_id", "preview_id", "trigger_type", "target_type"), "target_id", "target_url")
    request = SendRequest(
        notification_id=record["id"],
        message_text=text,
        fallback_used=fallback_used,
        attempt_count=record["attempt_count"] + 1,
        trace_id=record["trace_id"],
        **{name: record[name] for name in same},
    )

    assert request.as_payload() == expected


def payload_validate(case: Case) -> None:
    wrong = case.expected["error_field"]
    if wrong is None and not is_site_path(trim(case.given["target_url"])):
        wrong = "target_url"  # our rule is stricter

    if wrong is None:
        assert parse_payload(case.given).user_id == case.given["user_id"]
    else:
        with pytest.raises(InvalidNotification) as caught:
            parse_payload(case.given)
        assert caught.value.errors[0][0] == wrong


def is_site_path(url: str) -> bool:
    printable = not any(char == "\\" or char < " " or "\x7f" <= char <= "\x9f" for char in url)
    return url.startswith("/") and not url.startswith("//") and "://" not in url and printable


FILES: dict[str, Callable[[Case], Any]] = {
    "backoff": backoff,
    "contains_link": contains_link,
    "lock_key": lock_key_of,
    "options": options_of,
    "payload_validate": payload_validate,
    "provider_result": check_case,
    "send_request": send_request,
    "sequences": check_case,
    "template": template,
    "transitions": check_case,
    "truncate": truncate,
}
