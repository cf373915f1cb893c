"""Users' channels in the admin: secrets are validated, stored and never shown."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation
from django.views.debug import SafeExceptionReporterFilter

from notifications.admin.channels import MAX_TESTS_PER_REQUEST
from notifications.conf import PROVIDERS, service_options
from notifications.models import NotificationRecord, UserNotificationChannel
from notifications.providers import get_provider
from notifications.providers.base import ChannelRules, SendResult
from notifications.providers.feishu.flow import check_webhook_url
from notifications.providers.memory import MemoryProvider
from notifications.states import HoldReason
from tests.support.factories import LIST, make_attempt, make_record

pytestmark = pytest.mark.django_db

URL = "/admin/notifications/usernotificationchannel/"
KEY = "canary0webhook1key2never3shown"
ADDRESS = f"https://www.feishu.cn/flow/api/trigger-webhook/{KEY}"
TOKEN = "canary-bearer-token-never-shown"


@pytest.fixture
def stored(make_user: Callable[..., User]) -> UserNotificationChannel:
    """A channel with an address and a token."""
    return UserNotificationChannel.objects.create(
        user=make_user("alice"),
        webhook_url=ADDRESS,
        auth_type="bearer",
        bearer_token=TOKEN,
        last_test_status="success",
        last_test_at=timezone.now(),
    )


def save(client: Client, channel: UserNotificationChannel | None = None, /, **fields: Any) -> Any:
    """Post the form with the stored values and the given changes."""
    data = {"enabled": "on", "auth_type": channel.auth_type if channel else "none"}
    url = f"{URL}{channel.pk}/change/" if channel else f"{URL}add/"
    return client.post(url, data | fields)


def errors(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200, "the form was accepted"
    return dict(response.context["adminform"].form.errors)


class TestSecrets:
    def test_secrets_are_on_no_page(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        record = make_record(user_id=stored.user_id)
        make_attempt(record)
        save(admin_client, stored, new_webhook_url=ADDRESS + "4", new_bearer_token=TOKEN + "5")
        pages = [
            *(
                URL,
                f"{URL}add/",
                f"{URL}{stored.pk}/change/",
                f"{URL}{stored.pk}/history/",
                f"{URL}{stored.pk}/delete/",
            ),
            *(LIST, f"{LIST}{record.pk}/change/", "/admin/", f"/admin/auth/user/{stored.user_id}/change/"),
            f"/admin/auth/user/{stored.user_id}/delete/",
        ]

        for url in pages:
            html = admin_client.get(url, follow=True).content.decode()
            assert KEY not in html, url
            assert TOKEN not in html, url

    def test_invalid_form_does_not_return_secrets(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        response = save(
            admin_client, stored, new_webhook_url=f"http://evil.example/{KEY}", new_bearer_token=TOKEN, clear_token="on"
        )

        assert errors(response)
        assert KEY not in response.content.decode()
        assert TOKEN not in response.content.decode()

    def test_history_does_not_contain_secrets(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        save(admin_client, stored, new_webhook_url=ADDRESS + "x", new_bearer_token=TOKEN + "x")

        entry = LogEntry.objects.get()
        assert "New webhook address" in entry.get_change_message()
        assert "canary" not in entry.change_message + entry.object_repr

    def test_error_reports_do_not_contain_secrets(self, admin_user: User) -> None:
        request: Any = RequestFactory().post("/", {"new_webhook_url": ADDRESS, "new_bearer_token": TOKEN})
        request.user, request._dont_enforce_csrf_checks = admin_user, True

        admin.site.get_model_admin(UserNotificationChannel).changeform_view(request)

        reported = SafeExceptionReporterFilter().get_post_parameters(request)
        assert set(reported.values()) == {SafeExceptionReporterFilter.cleansed_substitute}

    def test_masked_address_shows_first_and_last_characters(
        self, admin_client: Client, stored: UserNotificationChannel
    ) -> None:
        for url in (URL, f"{URL}{stored.pk}/change/"):
            assert "/trigger-webhook/cana...hown" in admin_client.get(url).content.decode()

    def test_undecryptable_secrets_are_reported_on_the_pages(
        self, admin_client: Client, stored: UserNotificationChannel, change: Callable[..., None]
    ) -> None:
        change(ENCRYPTION_KEYS=[Fernet.generate_key().decode()])

        for url in (URL, f"{URL}{stored.pk}/change/"):
            response = admin_client.get(url)
            assert response.status_code == 200
            assert "cannot be decrypted: key missing" in response.content.decode()

    def test_undecryptable_secrets_can_be_replaced(
        self, admin_client: Client, stored: UserNotificationChannel, change: Callable[..., None]
    ) -> None:
        change(ENCRYPTION_KEYS=[Fernet.generate_key().decode()])

        assert save(admin_client, stored, new_webhook_url=ADDRESS, new_bearer_token="new").status_code == 302

        stored.refresh_from_db()
        assert (stored.webhook_url.reveal(), stored.bearer_token.reveal()) == (ADDRESS, "new")

    def test_form_reports_a_missing_encryption_key(
        self, admin_client: Client, stored: UserNotificationChannel, change: Callable[..., None]
    ) -> None:
        change(ENCRYPTION_KEYS=[])

        assert "new_webhook_url" in errors(save(admin_client, stored, new_webhook_url=ADDRESS))


class TestForm:
    def test_form_adds_a_channel(self, admin_client: Client, make_user: Callable[..., User]) -> None:
        user = make_user("bob")

        response = save(admin_client, user=user.pk, channel="feishu", new_webhook_url=ADDRESS)

        assert response.status_code == 302
        channel = UserNotificationChannel.objects.get()
        assert (channel.user, channel.channel, channel.webhook_url.reveal()) == (user, "feishu", ADDRESS)

    def test_second_channel_of_the_same_kind_is_refused(
        self, admin_client: Client, stored: UserNotificationChannel
    ) -> None:
        assert errors(save(admin_client, user=stored.user_id, channel="feishu", new_webhook_url=ADDRESS))

    def test_channel_without_a_provider_is_refused(self, admin_client: Client, make_user: Callable[..., User]) -> None:
        response = save(admin_client, user=make_user("bob").pk, channel="pigeon", new_webhook_url=ADDRESS)

        assert "channel" in errors(response)

    def test_empty_fields_keep_stored_secrets(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        assert save(admin_client, stored).status_code == 302

        stored.refresh_from_db()
        assert (stored.webhook_url.reveal(), stored.bearer_token.reveal()) == (ADDRESS, TOKEN)
        assert stored.last_test_status == "success"

    def test_new_secret_clears_the_last_test(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        save(admin_client, stored, new_bearer_token="another")

        stored.refresh_from_db()
        assert (stored.webhook_url.reveal(), stored.bearer_token.reveal()) == (ADDRESS, "another")
        assert (stored.last_test_status, stored.last_test_at) == ("", None)

    def test_stored_token_can_be_deleted(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        save(admin_client, stored, auth_type="none", clear_token="on")

        stored.refresh_from_db()
        assert not stored.bearer_token
        assert (
            '<div class="readonly">stored</div>' not in admin_client.get(f"{URL}{stored.pk}/change/").content.decode()
        )

    def test_invalid_settings_are_reported_at_their_field(
        self, admin_client: Client, stored: UserNotificationChannel
    ) -> None:
        for fields, wrong in [
            ({"new_bearer_token": "x", "clear_token": "on"}, "clear_token"),
            ({"clear_token": "on"}, "new_bearer_token"),
            ({"new_bearer_token": "two words"}, "new_bearer_token"),
            ({"new_bearer_token": "ключ"}, "new_bearer_token"),
            ({"new_webhook_url": "http://www.feishu.cn/flow/api/trigger-webhook/abcdefgh"}, "new_webhook_url"),
            ({"new_webhook_url": "x" * 3000}, "new_webhook_url"),
            ({"auth_type": "basic"}, "auth_type"),
        ]:
            assert list(errors(save(admin_client, stored, **fields))) == [wrong], (fields, wrong)

    def test_enabled_channel_without_address_is_refused(
        self, admin_client: Client, make_user: Callable[..., User]
    ) -> None:
        user = make_user("bob")

        assert "new_webhook_url" in errors(save(admin_client, user=user.pk, channel="feishu"))
        assert save(admin_client, user=user.pk, channel="feishu", enabled="").status_code == 302

    def test_user_and_channel_cannot_be_changed(
        self, admin_client: Client, stored: UserNotificationChannel, make_user: Callable[..., User]
    ) -> None:
        save(admin_client, stored, user=make_user("mallory").pk, channel="other")

        stored.refresh_from_db()
        assert (stored.user.username, stored.channel) == ("alice", "feishu")

    def test_reason_is_in_the_operators_language(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        response = admin_client.post(
            f"{URL}{stored.pk}/change/",
            {"auth_type": "bearer", "new_webhook_url": "http://www.feishu.cn/x"},
            headers={"accept-language": "zh-hans"},
        )

        assert errors(response) == {"new_webhook_url": ["必须以 https:// 开头"]}

    def test_reasons_for_invalid_feishu_addresses_are_translated(self) -> None:
        for url in [
            "https://www.feishu.cn/flow/api/trigger-webhook/abc def",
            "https://[www.feishu.cn/flow",
            "http://www.feishu.cn/flow/api/trigger-webhook/abcdefgh",
            "https://evil.example/flow/api/trigger-webhook/abcdefgh",
            "https://www.feishu.cn/flow/api/trigger-webhook/abcdefgh?a=1",
            "https://www.feishu.cn/somewhere/else",
        ]:
            problem = check_webhook_url(url, service_options())

            with translation.override("zh-hans"):
                assert translation.gettext(problem) != problem


class TestOtherChannels:
    """The settings that each provider accepts."""

    BOT = "https://open.feishu.cn/open-apis/bot/v2/hook/canary0123456789"
    BASE = "https://tenant.feishu.cn/base/automation/webhook/event/canary0123456789"
    HOOK = "https://hooks.example.com/x?team=1"
    WHSEC = "whsec_Y2FuYXJ5LWtleS1vZi10aGlydHktdHdvLWJ5dGVzISE="

    @pytest.mark.parametrize(
        ("channel", "fields"),
        [
            ("feishu_bot", {"new_webhook_url": BOT}),
            ("feishu_bot", {"new_webhook_url": BOT, "auth_type": "signature", "new_bearer_token": "secret"}),
            ("feishu_base", {"new_webhook_url": BASE, "auth_type": "bearer", "new_bearer_token": "token"}),
            ("webhook", {"new_webhook_url": HOOK, "auth_type": "signature", "new_bearer_token": WHSEC}),
            ("webhook", {"new_webhook_url": HOOK, "auth_type": "signature", "new_bearer_token": f"{WHSEC},{WHSEC}"}),
            ("email", {"new_webhook_url": "alice@example.com"}),
            ("email", {}),
        ],
    )
    def test_valid_settings_are_stored(
        self, admin_client: Client, make_user: Callable[..., User], channel: str, fields: dict[str, str]
    ) -> None:
        user = make_user("bob", email="bob@example.com")

        assert save(admin_client, user=user.pk, channel=channel, **fields).status_code == 302

        stored = UserNotificationChannel.objects.get()
        assert stored.channel == channel
        assert stored.webhook_url.reveal() == fields.get("new_webhook_url", "")
        assert stored.bearer_token.reveal() == fields.get("new_bearer_token", "")

    def test_invalid_settings_are_reported_at_their_field(
        self, admin_client: Client, make_user: Callable[..., User]
    ) -> None:
        user = make_user("bob", email="bob@example.com")
        for channel, fields, wrong in [
            ("feishu_bot", {"new_webhook_url": ADDRESS}, "new_webhook_url"),
            ("feishu", {"new_webhook_url": self.BOT}, "new_webhook_url"),
            ("feishu_base", {"new_webhook_url": self.BOT}, "new_webhook_url"),
            ("webhook", {"new_webhook_url": "https://127.0.0.1/"}, "new_webhook_url"),
            ("email", {"new_webhook_url": self.BOT}, "new_webhook_url"),
            ("feishu", {"new_webhook_url": ADDRESS, "auth_type": "signature", "new_bearer_token": "x"}, "auth_type"),
            ("feishu_bot", {"new_webhook_url": self.BOT, "auth_type": "bearer", "new_bearer_token": "x"}, "auth_type"),
            ("email", {"auth_type": "bearer", "new_bearer_token": "x"}, "auth_type"),
            ("webhook", {"new_webhook_url": self.HOOK}, "auth_type"),
            ("webhook", {"new_webhook_url": self.HOOK, "auth_type": "signature"}, "new_bearer_token"),
            (
                "webhook",
                {"new_webhook_url": self.HOOK, "auth_type": "signature", "new_bearer_token": "whsec_short"},
                "new_bearer_token",
            ),
        ]:
            refused = errors(save(admin_client, user=user.pk, channel=channel, **fields))

            assert wrong in refused, (channel, fields, wrong)

    def test_email_channel_without_any_address_is_refused(
        self, admin_client: Client, make_user: Callable[..., User]
    ) -> None:
        assert "new_webhook_url" in errors(save(admin_client, user=make_user("bob").pk, channel="email"))

    def test_stored_bearer_token_is_not_accepted_as_signing_secret(
        self, admin_client: Client, make_user: Callable[..., User]
    ) -> None:
        channel = UserNotificationChannel.objects.create(
            user=make_user("bob"), channel="feishu_bot", webhook_url=self.BOT, auth_type="bearer", bearer_token="token"
        )

        assert "new_bearer_token" in errors(save(admin_client, channel, auth_type="signature"))
        assert save(admin_client, channel, auth_type="signature", new_bearer_token="secret").status_code == 302

    def test_signing_secret_is_on_no_page(self, admin_client: Client, make_user: Callable[..., User]) -> None:
        channel = UserNotificationChannel.objects.create(
            user=make_user("bob"),
            channel="webhook",
            webhook_url=self.HOOK,
            auth_type="signature",
            bearer_token=self.WHSEC,
        )

        for url in (URL, f"{URL}{channel.pk}/change/"):
            assert "Y2FuYXJ5" not in admin_client.get(url).content.decode()

    def test_reasons_for_invalid_addresses_are_translated(self) -> None:
        urls = ("https://a b", "https://[x", "http://x.example/", "https://1.2.3.4/", "https://u@www.feishu.cn/#")
        for channel, url in itertools.product(sorted(PROVIDERS), urls):
            rules = get_provider(channel)
            assert isinstance(rules, ChannelRules)
            problem = rules.address_problem(url)

            assert problem, (channel, url)
            with translation.override("zh-hans"):
                assert translation.gettext(problem) != problem, (channel, url)


class TestListAndPage:
    def test_list_reads_all_users_with_one_query(self, admin_client: Client) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                assert admin_client.get(URL).status_code == 200
            return len(captured)

        def add(count: int) -> None:
            for number in range(count):
                user = User.objects.create(username=f"u{number}-{count}")
                UserNotificationChannel.objects.create(user=user, webhook_url=ADDRESS)

        add(2)
        queries()
        few = queries()
        add(20)

        assert queries() == few

    def test_view_permission_shows_no_inputs(
        self, stored: UserNotificationChannel, make_user: Callable[..., User]
    ) -> None:
        viewer = make_user("viewer", is_staff=True)
        viewer.user_permissions.add(Permission.objects.get(codename="view_usernotificationchannel"))
        client = Client()
        client.force_login(viewer)

        response = client.get(f"{URL}{stored.pk}/change/")

        assert response.status_code == 200
        assert "new_webhook_url" not in response.content.decode()
        assert save(client, stored, new_webhook_url=ADDRESS).status_code == 403

    def test_search_matches_user_name_or_id(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        for term, found in (("alice", 1), (str(stored.user_id), 1), ("ali", 0)):
            assert admin_client.get(URL, {"q": term}).context["cl"].result_count == found

    def test_list_shows_the_last_test_result(self, admin_client: Client, stored: UserNotificationChannel) -> None:
        html = admin_client.get(URL).content.decode()

        assert "succeeded" in html
        assert "just now" in html

    def test_form_of_a_new_channel_shows_no_state(self, admin_client: Client) -> None:
        html = admin_client.get(f"{URL}add/").content.decode()

        assert "Webhook address:" in html
        assert "Last test" not in html
        assert "Delete the stored token" not in html


class TestActions:
    """The actions for channels whose endpoint is unhealthy."""

    @pytest.fixture
    def provider(self, change: Callable[..., None]) -> MemoryProvider:
        change(PROVIDERS={"feishu": "notifications.providers.memory.MemoryProvider"})
        configured = get_provider("feishu")
        assert isinstance(configured, MemoryProvider)
        return configured

    @pytest.fixture
    def paused(self, stored: UserNotificationChannel) -> UserNotificationChannel:
        stored.paused_at, stored.pause_reason = timezone.now(), "code 19001"
        stored.save()
        make_record("failed", user_id=stored.user_id, hold_reason=HoldReason.CHANNEL_PAUSED)
        return stored

    def press(self, client: Client, action: str, *channels: UserNotificationChannel) -> str:
        data = {"action": action, "_selected_action": [channel.pk for channel in channels]}
        return str(client.post(URL, data, follow=True).content.decode())

    def waiting(self) -> bool:
        return NotificationRecord.objects.filter(hold_reason=HoldReason.CHANNEL_PAUSED).exists()

    def test_list_and_page_of_a_paused_channel_say_why_and_how_many_wait(
        self, admin_client: Client, paused: UserNotificationChannel
    ) -> None:
        for url in (URL, f"{URL}{paused.pk}/change/"):
            html = admin_client.get(url).content.decode()

            assert "code 19001" in html, url
            [link] = re.findall(r'href="([^"]*now=held[^"]*)">1</a>', html)
            assert len(admin_client.get(link.replace("&amp;", "&")).context["cl"].result_list) == 1

    def test_page_of_a_channel_has_buttons_to_test_and_to_resume(
        self, admin_client: Client, paused: UserNotificationChannel, provider: MemoryProvider
    ) -> None:
        page = f"{URL}{paused.pk}/change/"
        html = admin_client.get(page).content.decode()
        assert re.findall(r'name="action" value="(\w+)"', html) == ["send_test", "resume"]

        for action in ("resume", "send_test"):
            data = {"action": action, "_selected_action": [paused.pk], "from_page": "1"}
            response = admin_client.post(URL, data)

            assert (response.status_code, response["Location"]) == (302, page), action
        html = admin_client.get(page).content.decode()
        assert re.findall(r'name="action" value="(\w+)"', html) == ["send_test"]
        for text in ("1 channel was resumed.", "the test message was delivered."):
            assert text in html

    def test_a_viewer_sees_no_buttons(self, client: Client, paused: UserNotificationChannel) -> None:
        viewer = User.objects.create_user("viewer", is_staff=True)
        viewer.user_permissions.add(Permission.objects.get(codename="view_usernotificationchannel"))
        client.force_login(viewer)

        html = client.get(f"{URL}{paused.pk}/change/").content.decode()

        assert "code 19001" in html
        assert 'name="action"' not in html

    def test_a_chinese_browser_sees_the_pause_as_a_state_with_its_age(
        self, admin_client: Client, paused: UserNotificationChannel
    ) -> None:
        html = admin_client.get(URL, headers={"accept-language": "zh-CN"}).content.decode()

        assert re.search("已暂停</[^（]*（<[^）]*>刚刚</[^）]*）", html)

    def test_resume_ends_the_pause_and_releases_held_records(
        self, admin_client: Client, paused: UserNotificationChannel
    ) -> None:
        html = self.press(admin_client, "resume", paused)

        paused.refresh_from_db()
        assert "1 channel was resumed." in html
        assert (paused.paused_at, paused.pause_reason, self.waiting()) == (None, "", False)
        assert LogEntry.objects.get().change_message == "Resumed."

    def test_resume_of_a_healthy_channel_changes_nothing(
        self, admin_client: Client, stored: UserNotificationChannel
    ) -> None:
        assert "0 channels were resumed." in self.press(admin_client, "resume", stored)
        assert not LogEntry.objects.exists()

    def test_successful_test_message_ends_the_pause(
        self, admin_client: Client, paused: UserNotificationChannel, provider: MemoryProvider
    ) -> None:
        html = self.press(admin_client, "send_test", paused)

        paused.refresh_from_db()
        assert "the test message was delivered" in html
        assert (len(provider.requests), paused.last_test_status, paused.paused_at) == (1, "success", None)
        assert not self.waiting()

    def test_failed_test_message_shows_the_error_and_keeps_the_pause(
        self, admin_client: Client, paused: UserNotificationChannel, provider: MemoryProvider
    ) -> None:
        refusal = SendResult(outcome="permanent_fail", error_code="provider_config", error_message="code 19007")
        provider.script(refusal)

        html = self.press(admin_client, "send_test", paused)

        paused.refresh_from_db()
        assert "provider_config: code 19007" in html
        assert (paused.last_test_status, paused.pause_reason) == ("failed", "code 19001")
        assert self.waiting()

    def test_too_many_channels_are_not_tested(
        self, admin_client: Client, make_user: Callable[..., User], provider: MemoryProvider
    ) -> None:
        many = [
            UserNotificationChannel.objects.create(user=make_user(f"user{number}"), webhook_url=ADDRESS)
            for number in range(MAX_TESTS_PER_REQUEST + 1)
        ]

        assert f"Select at most {MAX_TESTS_PER_REQUEST} channels" in self.press(admin_client, "send_test", *many)
        assert provider.requests == []
