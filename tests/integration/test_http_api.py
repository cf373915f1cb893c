"""The HTTP API: show, save, delete and test a user's own channel, and list their own notifications."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given, settings as hypothesis_settings, strategies as st

from dev.waiting import wait_until
from notifications.channels import test_message as trial
from notifications.conf import service_options
from notifications.delivery.engine import Engine
from notifications.delivery.held_records import release_and_probe_channels
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers import get_provider
from notifications.providers.base import SendResult
from notifications.providers.memory import MemoryProvider
from notifications.security.secrets import Secret
from notifications.states import Outcome
from notifications.web_api import api
from notifications.web_api.errors import VALIDATION_MESSAGES
from tests.support.factories import make_record
from tests.support.query_plans import all_nodes, executed_plan, fill_table

MEMORY = {"feishu": "notifications.providers.memory.MemoryProvider"}
pytestmark = pytest.mark.django_db

URL = "/api/channels/feishu"
TEST = f"{URL}/test"
LIST = "/api/notifications"
KEY = "canary0webhook1key2never3shown"
ADDRESS = f"https://www.feishu.cn/flow/api/trigger-webhook/{KEY}"
TOKEN = "canary-bearer-token-never-shown"


@pytest.fixture
def alice(make_user: Callable[..., User]) -> User:
    return make_user("alice")


@pytest.fixture
def browser(alice: User) -> Client:
    """A client signed in as Alice."""
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def stored(alice: User) -> UserNotificationChannel:
    """Alice's channel with an address and a token."""
    return UserNotificationChannel.objects.create(
        user=alice,
        webhook_url=ADDRESS,
        auth_type="bearer",
        bearer_token=TOKEN,
        last_test_status="success",
        last_test_at=timezone.now(),
        paused_at=timezone.now(),
        pause_reason="refused for a day",
        failures=7,
        probe_at=timezone.now(),
    )


@pytest.fixture
def provider(change: Callable[..., None]) -> MemoryProvider:
    """The in-memory provider that receives the messages of this test."""
    change(PROVIDERS=MEMORY)
    found = get_provider("feishu")
    assert isinstance(found, MemoryProvider)
    return found


def save(client: Client, /, **fields: Any) -> Any:
    return client.put(URL, fields, content_type="application/json")


def errors(response: Any) -> dict[str, str]:
    """Check the shape of an error response and return its messages by field."""
    assert response.headers["Content-Type"].startswith("application/json")
    body = response.json()
    assert list(body) == ["errors"]
    return {error["field"]: error["message"] for error in body["errors"]}


def secrets(channel: UserNotificationChannel) -> tuple[str, str]:
    channel.refresh_from_db()
    return channel.webhook_url.reveal(), channel.bearer_token.reveal()


class TestShow:
    def test_missing_channel_is_shown_as_not_configured(self, browser: Client) -> None:
        shown = browser.get(URL).json()

        assert (shown["configured"], shown["enabled"], shown["webhook_url_masked"]) == (False, False, "")
        assert not UserNotificationChannel.objects.exists()

    def test_channel_is_shown_without_secrets(self, browser: Client, stored: UserNotificationChannel) -> None:
        answer = browser.get(URL)

        shown = answer.json()
        assert shown.pop("paused_at")
        assert shown.pop("last_test_at")
        assert shown == {
            "channel": "feishu",
            "configured": True,
            "enabled": True,
            "webhook_url_masked": "https://www.feishu.cn/flow/api/trigger-webhook/cana...hown",
            "auth_type": "bearer",
            "bearer_token_stored": True,
            "paused": True,
            "pause_reason": "refused for a day",
            "last_test_status": "success",
            "last_test_error": "",
        }
        assert KEY not in answer.content.decode()
        assert TOKEN not in answer.content.decode()

    def test_undecryptable_address_is_masked_completely(
        self, browser: Client, stored: UserNotificationChannel, change: Callable[..., None]
    ) -> None:
        change(ENCRYPTION_KEYS=[Fernet.generate_key().decode()])

        shown = browser.get(URL).json()

        assert (shown["configured"], shown["webhook_url_masked"]) == (True, "********")

    def test_responses_are_not_cached(self, browser: Client) -> None:
        assert "no-store" in browser.get(URL).headers["Cache-Control"]
        assert "no-store" in browser.delete(URL).headers["Cache-Control"]
        assert "no-store" in Client().get(URL).headers["Cache-Control"]


class TestHeldRecords:
    def test_records_that_wait_for_a_deleted_channel_are_released_when_it_is_entered_again(
        self, browser: Client, stored: UserNotificationChannel
    ) -> None:
        make_record("pending", user_id=stored.user_id, hold_reason="channel_paused")
        browser.delete(URL)

        save(browser, webhook_url=ADDRESS)

        assert UserNotificationChannel.objects.get().release_at is not None
        release_and_probe_channels(service_options())
        record = NotificationRecord.objects.get()
        assert record.hold_reason == ""
        assert NotificationRecord.objects.filter(next_attempt_at__lte=Now()).exists()

    def test_a_channel_for_which_nothing_waits_releases_nothing(self, browser: Client, alice: User) -> None:
        make_record("pending", user_id=alice.pk)

        save(browser, webhook_url=ADDRESS)

        assert UserNotificationChannel.objects.get().release_at is None


class TestSave:
    def test_save_creates_a_channel(self, browser: Client, alice: User) -> None:
        response = save(browser, webhook_url=ADDRESS)

        assert response.status_code == 200
        channel = UserNotificationChannel.objects.get()
        assert (channel.user, channel.channel, channel.enabled, channel.auth_type) == (alice, "feishu", True, "none")
        assert secrets(channel) == (ADDRESS, "")
        assert response.json() == browser.get(URL).json()

    def test_white_space_around_an_address_or_a_token_is_no_part_of_it(self, browser: Client) -> None:
        response = save(browser, webhook_url=f" {ADDRESS}\r\n", auth_type="bearer", bearer_token=f"\t{TOKEN}\n")

        assert response.status_code == 200
        assert secrets(UserNotificationChannel.objects.get()) == (ADDRESS, TOKEN)

    @pytest.mark.parametrize("fields", [{}, {"enabled": False}, {"auth_type": "bearer"}, {"enabled": True}])
    def test_omitted_fields_keep_their_value(
        self, browser: Client, stored: UserNotificationChannel, fields: dict[str, Any]
    ) -> None:
        assert save(browser, **fields).status_code == 200

        assert secrets(stored) == (ADDRESS, TOKEN)
        assert (stored.auth_type, stored.last_test_status, stored.pause_reason) == (
            "bearer",
            "success",
            "refused for a day",
        )
        assert stored.enabled is fields.get("enabled", True)

    @pytest.mark.parametrize("blank", [None, ""])
    def test_empty_value_deletes_a_secret(
        self, browser: Client, stored: UserNotificationChannel, blank: str | None
    ) -> None:
        assert save(browser, bearer_token=blank, auth_type="none").status_code == 200
        assert secrets(stored) == (ADDRESS, "")

        assert save(browser, webhook_url=blank, enabled=False).status_code == 200
        assert secrets(stored) == ("", "")

    @pytest.mark.parametrize(
        "fields", [{"webhook_url": f"{ADDRESS}2"}, {"bearer_token": "another"}, {"auth_type": "none"}]
    )
    def test_changed_endpoint_clears_the_last_test_and_ends_a_pause(
        self, browser: Client, stored: UserNotificationChannel, fields: dict[str, str]
    ) -> None:
        shown = save(browser, **fields).json()

        assert (shown["last_test_status"], shown["last_test_at"]) == ("", None)
        assert (shown["paused"], shown["paused_at"], shown["pause_reason"]) == (False, None, "")
        stored.refresh_from_db()
        assert (stored.failures, stored.probe_at) == (0, None)
        assert stored.release_at, "what waited would wait for ever"

    def test_save_does_not_undo_a_concurrent_key_rotation(
        self, browser: Client, stored: UserNotificationChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rotated = Secret.of(ADDRESS)
        real = UserNotificationChannel.save

        def rotate_first(self: UserNotificationChannel, **kwargs: Any) -> None:
            UserNotificationChannel.objects.update(webhook_url=rotated)
            real(self, **kwargs)

        monkeypatch.setattr(UserNotificationChannel, "save", rotate_first)

        save(browser, bearer_token="another")

        stored.refresh_from_db()
        assert stored.webhook_url == rotated

    def test_invalid_settings_are_reported_at_their_field(
        self, browser: Client, stored: UserNotificationChannel
    ) -> None:
        cases: list[tuple[dict[str, Any], set[str]]] = [
            ({"webhook_url": "http://www.feishu.cn/flow/api/trigger-webhook/abcdefgh"}, {"webhook_url"}),
            ({"webhook_url": "https://evil.example/flow/api/trigger-webhook/abcdefgh"}, {"webhook_url"}),
            ({"webhook_url": "x" * 2049}, {"webhook_url"}),
            ({"webhook_url": "\ud800"}, {"webhook_url"}),
            ({"webhook_url": 7}, {"webhook_url"}),
            ({"webhook_url": [ADDRESS]}, {"webhook_url"}),
            ({"webhook_url": ""}, {"webhook_url"}),
            ({"bearer_token": "two words"}, {"bearer_token"}),
            ({"bearer_token": "ключ"}, {"bearer_token"}),
            ({"bearer_token": None}, {"bearer_token"}),
            ({"bearer_token": "a\r\nX-Evil: 1"}, {"bearer_token"}),
            ({"auth_type": "basic"}, {"auth_type"}),
            ({"auth_type": None}, {"auth_type"}),
            ({"enabled": "yes"}, {"enabled"}),
            ({"enabled": 1}, {"enabled"}),
            ({"enabled": None}, {"enabled"}),
            ({"user": 7}, {"user"}),
            ({"paused": False, "last_test_status": "success"}, {"paused", "last_test_status"}),
            ({"webhook_url": "x", "bearer_token": "two words"}, {"webhook_url", "bearer_token"}),
            ({"<script>" * 99: 1}, {("<script>" * 99)[:64]}),
        ]
        for fields, wrong in cases:
            before = UserNotificationChannel.objects.values().get()

            response = save(browser, **fields)

            assert response.status_code == 422, (fields, wrong)
            assert errors(response).keys() == wrong, (fields, wrong)
            assert all(errors(response).values()), (fields, wrong)
            assert UserNotificationChannel.objects.values().get() == before, (fields, wrong)

    def test_each_validation_error_has_a_message_of_the_app(self, browser: Client) -> None:
        wrong: list[dict[str, Any]] = [
            *({"enabled": 7}, {"auth_type": "x"}, {"x": 1}, {"webhook_url": 7}, {"webhook_url": "x" * 9999}),
            {"auth_type": "\ud800"},
        ]
        answers = [save(browser, **fields) for fields in wrong]
        answers += [browser.put(URL, text, content_type="application/json") for text in ("", "[]", "7", "null")]
        answers += [browser.get(LIST, {"limit": text}) for text in ("0", "101", "x", "1.5", "9" * 5000, "")]

        said = {message for answer in answers for message in errors(answer).values()}

        assert {answer.status_code for answer in answers} == {422}
        assert "is not valid" not in said
        assert len(said) == len(VALIDATION_MESSAGES)

    def test_new_enabled_channel_requires_an_address(self, browser: Client) -> None:
        assert errors(save(browser)).keys() == {"webhook_url"}
        assert errors(save(browser, auth_type="bearer")).keys() == {"webhook_url", "bearer_token"}
        assert not UserNotificationChannel.objects.exists()

        assert save(browser, enabled=False).status_code == 200

    def test_save_reports_a_missing_encryption_key(self, browser: Client, change: Callable[..., None]) -> None:
        change(ENCRYPTION_KEYS=[])

        assert errors(save(browser, webhook_url=ADDRESS))["webhook_url"].startswith("cannot be stored")

    def test_body_that_is_not_json_is_refused(self, browser: Client) -> None:
        for text in ["{", "", "\x00", '{"enabled": tru', "[" * 100_000, "NaN" * 9, "9" * 9999]:
            response = browser.put(URL, text, content_type="application/json")

            assert response.status_code in (400, 422), text
            assert errors(response).keys() == {"body"}, text

    def test_body_that_is_not_utf8_is_refused(self, browser: Client) -> None:
        assert errors(browser.put(URL, b"\xff\xfe{", content_type="application/json")).keys() == {"body"}

    def test_huge_body_gets_413(self, browser: Client) -> None:
        response = save(browser, webhook_url="x" * 3_000_000)

        assert response.status_code == 413
        assert errors(response).keys() == {"body"}

    def test_number_of_reported_errors_is_limited(self, browser: Client) -> None:
        response = save(browser, **{f"field{number}": 1 for number in range(5000)})

        assert len(response.json()["errors"]) == 20

    def test_errors_are_in_the_users_language(self, browser: Client) -> None:
        def chinese(**fields: Any) -> dict[str, str]:
            return errors(
                browser.put(URL, fields, content_type="application/json", headers={"accept-language": "zh-CN"})
            )

        assert chinese(webhook_url="http://www.feishu.cn/x") == {"webhook_url": "必须以 https:// 开头"}
        assert chinese(x=1) == {"x": "不是已知的字段"}

    @given(
        steps=st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "enabled": st.booleans(),
                    "auth_type": st.sampled_from(["none", "bearer"]),
                    "webhook_url": st.sampled_from([None, "", ADDRESS, f"{ADDRESS}2"]),
                    "bearer_token": st.sampled_from([None, "", TOKEN, "another"]),
                },
            ),
            min_size=1,
            max_size=6,
        )
    )
    @hypothesis_settings(max_examples=100, deadline=None)
    def test_series_of_saves_equals_the_merged_save(self, steps: list[dict[str, Any]]) -> None:
        user = User.objects.create(username=f"user{User.objects.count()}")
        client = Client()
        client.force_login(user)
        expected: dict[str, Any] = {"enabled": True, "auth_type": "none", "webhook_url": "", "bearer_token": ""}
        saved = False
        for step in steps:
            wanted = expected | {
                name: value or "" for name, value in step.items() if name in ("webhook_url", "bearer_token")
            }
            wanted |= {name: value for name, value in step.items() if name in ("enabled", "auth_type")}
            wrong = {"webhook_url"} if wanted["enabled"] and not wanted["webhook_url"] else set()
            wrong |= {"bearer_token"} if wanted["auth_type"] == "bearer" and not wanted["bearer_token"] else set()

            response = save(client, **step)

            assert (errors(response).keys() if wrong else response.status_code) == (wrong or 200)
            expected, saved = (expected, saved) if wrong else (wanted, True)
        rows = UserNotificationChannel.objects.filter(user=user)
        assert rows.exists() == saved
        for row in rows:
            assert secrets(row) == (expected["webhook_url"], expected["bearer_token"])
            assert (row.enabled, row.auth_type) == (expected["enabled"], expected["auth_type"])

    @pytest.mark.django_db(transaction=True)
    def test_concurrent_first_saves_create_one_channel(self, alice: User, browser: Client) -> None:
        start, codes = threading.Barrier(2), []

        def put() -> None:
            start.wait(10)
            codes.append(save(browser, webhook_url=ADDRESS, bearer_token=TOKEN).status_code)
            connection.close()

        threads = [threading.Thread(target=put) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert codes == [200, 200]
        assert secrets(UserNotificationChannel.objects.get()) == (ADDRESS, TOKEN)

    @pytest.mark.django_db(transaction=True)
    def test_concurrent_saves_are_serialised(self, browser: Client, stored: UserNotificationChannel) -> None:
        answers: list[Any] = []

        def switch_on() -> None:
            answers.append(save(browser, enabled=True))
            connection.close()

        def waits_for_us() -> bool:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted AND transactionid IS NOT NULL")
                return cursor.fetchone() is not None

        thread = threading.Thread(target=switch_on)
        with transaction.atomic():
            UserNotificationChannel.objects.update(webhook_url="", enabled=False)
            thread.start()
            wait_until(waits_for_us, "the other save waits")
        thread.join(30)

        assert errors(answers[0]).keys() == {"webhook_url"}
        stored.refresh_from_db()
        assert not stored.enabled


class TestDelete:
    def test_delete_removes_secrets_and_is_idempotent(self, browser: Client, stored: UserNotificationChannel) -> None:
        assert [browser.delete(URL).status_code for _ in range(2)] == [204, 204]
        assert not UserNotificationChannel.objects.exists()


class TestSendTest:
    def test_test_message_uses_the_normal_delivery(
        self, browser: Client, stored: UserNotificationChannel, provider: MemoryProvider
    ) -> None:
        answer = browser.post(TEST, headers={"accept-language": "zh-CN"})

        record = NotificationRecord.objects.get()
        assert answer.json() == {
            "status": "sent",
            "error_code": "",
            "problem": "",
            "delivered": True,
            "notification_id": record.pk,
        }
        assert (record.user_id, record.trigger_type, record.max_attempts) == (stored.user_id, "test", 1)
        [sent] = provider.requests
        assert "测试" in sent.message_text
        assert browser.get(URL).json()["last_test_status"] == "success"

    @pytest.mark.django_db(transaction=True)
    def test_result_of_a_test_message_that_another_process_sends_is_waited_for(
        self,
        browser: Client,
        stored: UserNotificationChannel,
        provider: MemoryProvider,
        monkeypatch: pytest.MonkeyPatch,
        change: Callable[..., None],
    ) -> None:
        change(PROVIDERS=MEMORY, HELD_KEY_DELAY=0.1)

        def drain() -> None:
            wait_until(lambda: Engine().deliver_due().sent, "the other process sends the message")
            connection.close()

        def lose_the_claim(*args: Any, **kwargs: Any) -> None:
            other.start()

        other = threading.Thread(target=drain)
        monkeypatch.setattr(Engine, "deliver_one", lose_the_claim)
        answer = browser.post(TEST).json()
        other.join()

        assert (answer["status"], answer["delivered"]) == ("sent", True)
        assert browser.get(URL).json()["last_test_status"] == "success"

    def test_test_message_that_takes_too_long_is_reported_as_on_its_way(
        self,
        browser: Client,
        stored: UserNotificationChannel,
        provider: MemoryProvider,
        monkeypatch: pytest.MonkeyPatch,
        change: Callable[..., None],
    ) -> None:
        change(PROVIDERS=MEMORY, TOTAL_TIMEOUT=0.2)
        monkeypatch.setattr(Engine, "deliver_one", lambda *args, **kwargs: None)

        answer = browser.post(TEST).json()

        assert (answer["status"], answer["delivered"], answer["problem"]) == ("pending", False, "")
        assert browser.get(URL).json()["last_test_status"] == "success"  # that of the last test

    def test_failed_test_message_is_reported_stored_and_not_retried(
        self, browser: Client, stored: UserNotificationChannel, provider: MemoryProvider
    ) -> None:
        provider.script(
            SendResult(outcome=Outcome.TEMPORARY_FAIL, error_code="provider_timeout", error_message="no answer")
        )

        answer = browser.post(TEST)

        told = answer.json()
        assert answer.status_code == 200
        assert (told["delivered"], told["status"], told["error_code"]) == (False, "dead", "provider_timeout")
        assert "did not answer in time" in told["problem"]
        shown = browser.get(URL).json()
        assert (shown["last_test_status"], shown["last_test_error"]) == ("failed", "provider_timeout: no answer")

    def test_only_a_successful_test_message_ends_a_pause(
        self, browser: Client, stored: UserNotificationChannel, provider: MemoryProvider, at: Callable[[float], None]
    ) -> None:
        provider.script(SendResult(outcome=Outcome.PERMANENT_FAIL, error_code="provider_config", error_message="no"))
        at(60_000)
        assert browser.post(TEST).json()["delivered"] is False
        assert browser.get(URL).json()["paused"] is True

        at(60_030)
        assert browser.post(TEST).json()["delivered"] is True
        assert browser.get(URL).json()["paused"] is False

    def test_incomplete_channel_sends_no_test_message(
        self, browser: Client, alice: User, provider: MemoryProvider
    ) -> None:
        none = browser.post(TEST)
        save(browser, enabled=False)
        blank = browser.post(TEST)
        save(browser, webhook_url=ADDRESS)
        off = browser.post(TEST)

        assert [answer.status_code for answer in (none, blank, off)] == [409, 409, 409]
        assert [list(errors(answer)) for answer in (none, blank, off)] == [
            ["webhook_url"],
            ["webhook_url"],
            ["enabled"],
        ]
        assert provider.requests == []
        assert not NotificationRecord.objects.exists()

    @pytest.fixture
    def at(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        """Return a function that sets the clock of the rate limit."""

        def set_clock(seconds: float) -> None:
            monkeypatch.setattr(trial, "database_now", lambda: datetime.fromtimestamp(seconds, UTC))

        return set_clock

    def test_test_messages_are_rate_limited(
        self, browser: Client, stored: UserNotificationChannel, provider: MemoryProvider, at: Callable[[float], None]
    ) -> None:
        waits = []
        for seconds in (60_000.0, 60_000.1, 60_029.9, 60_030.0, 60_031.0, 60_060.0):
            at(seconds)
            answer = browser.post(TEST)
            waits.append(answer.headers.get("Retry-After"))
            assert answer.status_code == (429 if waits[-1] else 200)
            if waits[-1]:
                assert waits[-1] in errors(answer)[""]

        assert waits == [None, "30", "1", None, "29", None]
        assert len(provider.requests) == 3

    def test_retry_after_is_long_enough(
        self, browser: Client, stored: UserNotificationChannel, provider: MemoryProvider, at: Callable[[float], None],
        change: Callable[..., None],
    ) -> None:  # fmt: skip
        change(TEST_INTERVAL=0.7)
        now = 1_764_000_000.3
        at(now)
        browser.post(TEST)

        wait = int(browser.post(TEST).headers["Retry-After"])

        at(now + wait)
        assert browser.post(TEST).status_code == 200

    def test_rate_limit_uses_the_database_clock(
        self, stored: UserNotificationChannel, provider: MemoryProvider
    ) -> None:
        trial.send_own_test_message(stored.user)

        interval = service_options().test_interval
        record = NotificationRecord.objects.get()
        assert int(record.dedupe_key.split(":")[-1]) == math.floor(record.created_at.timestamp() / interval)

    def test_recreated_or_changed_channel_keeps_the_rate_limit(
        self, browser: Client, stored: UserNotificationChannel, provider: MemoryProvider, at: Callable[[float], None]
    ) -> None:
        at(60_000)
        browser.post(TEST)

        save(browser, webhook_url=f"{ADDRESS}2")
        assert browser.post(TEST).status_code == 429
        browser.delete(URL)
        save(browser, webhook_url=ADDRESS)
        assert browser.post(TEST).status_code == 429
        assert len(provider.requests) == 1

    def test_rate_limit_is_per_user(
        self, browser: Client, stored: UserNotificationChannel, provider: MemoryProvider,
        make_user: Callable[..., User], at: Callable[[float], None],
    ) -> None:  # fmt: skip
        at(60_000)
        other = Client()
        other.force_login(make_user("bob", webhook_url=ADDRESS))

        assert [client.post(TEST).status_code for client in (browser, other)] == [200, 200]

    @pytest.mark.django_db(transaction=True)
    def test_concurrent_test_requests_send_one_message(
        self, browser: Client, stored: UserNotificationChannel, provider: MemoryProvider, at: Callable[[float], None]
    ) -> None:
        at(60_000)
        start, codes = threading.Barrier(6), []

        def post() -> None:
            start.wait(10)
            codes.append(browser.post(TEST).status_code)
            connection.close()

        threads = [threading.Thread(target=post) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert sorted(codes) == [200, *[429] * 5]
        assert len(provider.requests) == 1


class TestList:
    def test_list_shows_own_notifications_newest_first(self, browser: Client, alice: User) -> None:
        mine = [make_record(user_id=alice.pk).pk for _ in range(5)]
        make_record(user_id=alice.pk + 1)
        pages, query = [], {"limit": 2}
        while True:
            page = browser.get(LIST, query).json()
            pages.append([item["id"] for item in page["items"]])
            if page["next"] is None:
                break
            query["before"] = page["next"]

        assert pages == [mine[:2:-1], mine[2:0:-1], mine[:1]]

    def test_full_last_page_has_no_next(self, browser: Client, alice: User) -> None:
        make_record(user_id=alice.pk)

        assert browser.get(LIST, {"limit": 1}).json()["next"] is None
        assert browser.get(LIST, {"before": 1}).json() == {"items": [], "next": None}

    def test_notification_shows_text_status_and_error(self, browser: Client, alice: User) -> None:
        make_record("sent", user_id=alice.pk, fallback_used=True, fallback_text="the other", last_error_code="old")
        make_record("dead", user_id=alice.pk, last_error="code 19001")

        dead, sent = browser.get(LIST).json()["items"]

        assert (dead["status"], dead["error_code"], dead["text"]) == ("dead", "provider_config", "写周报改到周四上午")
        assert "Your bot or flow refuses messages" in dead["problem"]
        assert (sent["status"], sent["error_code"], sent["problem"], sent["text"]) == ("sent", "", "", "the other")
        assert sent["sent_at"]
        zh = browser.get(LIST, headers={"accept-language": "zh-CN"}).json()["items"][0]["problem"]
        assert zh != dead["problem"]

    def test_list_reads_no_requests_or_responses(self, browser: Client, alice: User) -> None:
        payload = {"provider_request": {"x": KEY}, "provider_response": [TOKEN], "last_error": f"see {ADDRESS} {TOKEN}"}
        make_record("dead", user_id=alice.pk, dedupe_key=f"k{KEY}", trace_id=f"t{KEY}", **payload)

        with CaptureQueriesContext(connection) as captured:
            answer = browser.get(LIST).content.decode()

        assert KEY not in answer
        assert TOKEN not in answer
        read = [query["sql"] for query in captured if "notification_records" in query["sql"]]
        assert len(read) == 1
        assert "provider_re" not in read[0]
        assert '"last_error"' not in read[0]

    def test_invalid_page_parameters_are_reported_at_their_field(self, browser: Client) -> None:
        cases: list[dict[str, Any]] = [
            {"limit": 0},
            {"limit": 101},
            {"before": 0},
            {"before": 2**63},
            {"before": "x"},
            {"limit": "9" * 9999},
            {"limti": 5},
            {"Limit": 5, "befor": 7},
        ]
        for query in cases:
            response = browser.get(LIST, query)

            assert response.status_code == 422, query
            assert errors(response).keys() == query.keys(), query

    def test_list_reads_only_the_rows_of_its_page(self, alice: User) -> None:
        fill_table("others", "sent", 50_000)
        with connection.cursor() as cursor:  # the rows of one user lie between those of the others
            cursor.execute("UPDATE notification_records SET user_id = %s WHERE id %% 500 = 0", [alice.pk])
        newest = NotificationRecord.objects.filter(user_id=alice.pk, id__lt=2**63 - 1).order_by("-id")[:21]
        statement, parameters = newest.query.sql_with_params()

        found = all_nodes(executed_plan(statement, parameters))  # type: ignore[arg-type]

        assert {node["Index Name"] for node in found if "Index Name" in node} == {"notification_user"}
        assert max(node["Actual Rows"] for node in found) <= 21
        assert not [node for node in found if node["Node Type"] in ("Sort", "Seq Scan")]


HOSTILE = ["<script>canary()</script>", "\u202egnp.exe", "{{ canary }}", "a\u0007b", "﷽" * 2000, "'; DROP TABLE x; --"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_returned_as_data(
    browser: Client, alice: User, stored: UserNotificationChannel, text: str
) -> None:
    make_record(user_id=alice.pk, summary_text=text, target_url=text[:99], trigger_type=text[:60])
    UserNotificationChannel.objects.update(last_test_error=text[:190], pause_reason=text[:190])

    listed, shown, refused = browser.get(LIST), browser.get(URL), save(browser, **{text: text, "webhook_url": text})

    assert listed.json()["items"][0]["text"] == text
    assert shown.json()["last_test_error"] == text[:190]
    assert refused.status_code == 422
    for answer in (listed, shown, refused):
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


class TestDocument:
    def test_docs_page_loads_scripts_from_this_site(self, client: Client) -> None:
        document = client.get("/api/openapi.json").json()
        page = client.get("/api/docs").content.decode()

        assert document["openapi"].startswith("3.")
        assert "/static/ninja/swagger-ui-bundle.js" in page
        assert "https://cdn" not in page

    def test_document_marks_secrets_as_write_only(self) -> None:
        schemas = json.loads(json.dumps(api.get_openapi_schema()))["components"]["schemas"]

        for name in ("webhook_url", "bearer_token"):
            written = schemas["ChannelIn"]["properties"][name]
            assert written["anyOf"][0]["writeOnly"] is True
            assert "default" not in written
            assert name not in schemas["ChannelOut"]["properties"]
