"""Options, and the checks that name what is wrong with them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from pytest_django import Settings

from notifications.conf import PROVIDERS, RENAMED, ProviderConfig, ServiceOptions, known_names, service_options
from notifications.delivery.locks import lock_ttl
from notifications.providers import get_provider

Change = Callable[..., None]
NUMBERS = sorted(spec.name for spec in dataclasses.fields(ServiceOptions) if isinstance(spec.default, (int, float)))
WHOLE = sorted(spec.name for spec in dataclasses.fields(ServiceOptions) if isinstance(spec.default, int))
DURATIONS = sorted(set(NUMBERS) - set(WHOLE))
TEXTS = sorted(spec.name for spec in dataclasses.fields(ServiceOptions) if isinstance(spec.default, str))
LISTS = sorted(spec.name for spec in dataclasses.fields(ServiceOptions) if isinstance(spec.default, tuple))
MEMORY = "notifications.providers.memory.MemoryProvider"
FLOW = "notifications.providers.feishu.flow.FeishuFlowProvider"


def make_options(**fields: Any) -> ServiceOptions:
    """Return options. A function of its own, because tests also pass values of the wrong type."""
    return ServiceOptions(**fields)


def accepted(names: list[str], values: list[Any], error: str) -> list[tuple[str, Any]]:
    """Return each name with each value that is not refused with an error that names it and says so."""
    wrong = []
    for name, value in itertools.product(names, values):
        try:
            make_options(**{name: value})
        except (TypeError, ValueError) as refused:
            if str(refused).startswith(f"{name.upper()} must be") and error in str(refused):
                continue
        wrong.append((name, value))
    return wrong


def reported(*, deploy: bool = False) -> dict[str, str]:
    """Return the texts of this app's check messages by id."""
    messages = checks.run_checks(include_deployment_checks=deploy)
    own = [message for message in messages if "notifications." in str(message.id)]
    return {str(message.id).removeprefix("notifications."): message.msg for message in own}


class TestServiceOptions:
    def test_defaults_are_the_go_services(self) -> None:
        options = ServiceOptions()

        assert (options.max_attempts, options.retry_base_delay, options.retry_max_delay) == (5, 300, 1800)
        assert (options.summary_max_runes, options.retry_scan_batch) == (180, 100)

    def test_zero_or_less_means_the_default(self) -> None:
        for value in (0, -1):
            assert make_options(**dict.fromkeys(NUMBERS, value)) == ServiceOptions()

    def test_a_duration_may_be_a_timedelta_or_a_whole_number(self) -> None:
        options = make_options(**dict.fromkeys(DURATIONS, timedelta(minutes=90)))
        whole = make_options(**dict.fromkeys(DURATIONS, 7))

        assert {name: getattr(options, name) for name in DURATIONS} == dict.fromkeys(DURATIONS, 5400.0)
        assert {type(getattr(whole, name)) for name in DURATIONS} == {float}

    def test_a_timedelta_of_zero_or_less_means_the_default(self) -> None:
        assert make_options(lease=timedelta(0)).lease == make_options(lease=timedelta(seconds=-1)).lease == 60.0

    def test_a_maximum_below_the_base_is_raised_to_it(self) -> None:
        assert make_options(retry_base_delay=600, retry_max_delay=60).retry_max_delay == 600

    def test_a_value_that_is_no_number_is_refused_by_name(self) -> None:
        assert accepted(NUMBERS, ["5", None, True, [5], float("nan"), float("inf"), 1j], "") == []

    def test_a_count_must_be_whole(self) -> None:
        assert accepted(WHOLE, [1.5, 5.0, timedelta(seconds=5)], "must be a whole number") == []

    def test_a_number_no_float_can_hold_is_refused_by_name(self) -> None:
        assert accepted(["retry_base_delay"], [10**400], "must be finite") == []

    def test_a_value_that_is_no_text_is_refused_by_name(self) -> None:
        assert accepted(TEXTS, [None, 5, b"x", ["x"]], "must be a string") == []

    def test_a_value_that_is_no_list_of_texts_is_refused_by_name(self) -> None:
        assert accepted(LISTS, [None, "key", [5], {"a": "b"}], "must be a list of strings") == []

    def test_providers_must_be_dotted_paths_or_backends_with_options(self) -> None:
        entries: list[Any] = [5, {}, {"OPTIONS": {}}, {"BACKEND": 5}, {"BACKEND": "a.B", "OPTION": {}}]
        wrong = [None, "feishu", ["a.B"], {5: "a.B"}, *({"feishu": entry} for entry in entries)]
        wrong += [{"feishu": {"BACKEND": "a.B", "OPTIONS": options}} for options in (None, "x", {5: "x"})]

        for value in wrong:
            with pytest.raises(TypeError, match=r"^PROVIDERS.* dotted path"):
                make_options(providers=value)

    def test_a_provider_has_options_or_none(self) -> None:
        options = make_options(providers={"a": "x.A", "b": {"BACKEND": "x.B", "OPTIONS": {"title": "t"}}})

        assert options.providers == {"a": ProviderConfig("x.A"), "b": ProviderConfig("x.B", {"title": "t"})}

    def test_a_blank_fallback_text_means_the_default(self) -> None:
        assert make_options(fallback_text=" \n").fallback_text == ServiceOptions().fallback_text

    def test_the_user_agent_is_ascii_whatever_the_project_is_called(self) -> None:
        names = {"": "Notifications", "SmartMate": "SmartMate-Notifications", "日程 Plan\r\nB": "Plan-B-Notifications"}

        assert {name: make_options(project_name=name).user_agent for name in names} == names

    def test_no_secret_is_in_its_repr(self) -> None:
        shown = repr(make_options(redis_url="redis://:hunter2@host", encryption_keys=["canary"]))

        assert "hunter2" not in shown
        assert "canary" not in shown

    def test_a_lock_outlives_the_lease(self) -> None:
        assert lock_ttl(make_options(lease=60)) > 60
        assert lock_ttl(make_options(lease=0.5)) > 0.5


class TestServiceOptionsOfTheProject:
    def test_a_changed_setting_is_seen_at_once(self, change: Change) -> None:
        change(MAX_ATTEMPTS=9)

        assert service_options().max_attempts == 9

    def test_an_unknown_key_is_named(self, change: Change) -> None:
        change(MAX_ATEMPTS=9, max_attempts=9)

        with pytest.raises(ImproperlyConfigured, match=r"NOTIFICATIONS: MAX_ATEMPTS, max_attempts$"):
            service_options()

    @pytest.mark.parametrize("value", ["5", float("nan"), 10**400])
    def test_a_bad_value_is_named(self, change: Change, value: object) -> None:
        change(LEASE=value)

        with pytest.raises(ImproperlyConfigured, match=r"settings\.NOTIFICATIONS: LEASE must be"):
            service_options()

    def test_without_the_setting_the_defaults_apply(self, settings: Settings) -> None:
        del settings.NOTIFICATIONS
        service_options.cache_clear()

        assert service_options() == ServiceOptions()

    def test_known_names_are_the_upper_case_fields_and_old_names(self) -> None:
        assert {"MAX_ATTEMPTS", "ENCRYPTION_KEYS", "PROVIDERS", *RENAMED} <= known_names()
        assert all(name.isupper() for name in known_names())

    def test_a_new_key_wins_over_its_old_name(self, settings: Settings) -> None:
        settings.NOTIFICATIONS = {"FEISHU_TITLE": "old", "FEISHU_EVENT": "old", "EVENT_NAME": "new"}

        assert (service_options().message_title, service_options().event_name) == ("old", "new")


class TestProviderOptions:
    def test_a_provider_gets_its_options_and_the_others_the_settings(self, change: Change) -> None:
        change(MESSAGE_TITLE="All", PROVIDERS={"a": {"BACKEND": FLOW, "OPTIONS": {"title": "Own"}}, "b": FLOW})

        titles = [getattr(get_provider(channel), "title", "") for channel in "ab"]

        assert titles == ["Own", "All"]


class TestChecks:
    def test_the_project_passes(self) -> None:
        assert reported(deploy=True) == {}

    def test_e001_unknown_key(self, change: Change) -> None:
        change(MAX_ATEMPTS=9)

        assert reported() == {"E001": "Unknown key in NOTIFICATIONS: MAX_ATEMPTS."}

    def test_e002_wrong_type(self, change: Change) -> None:
        change(MAX_ATTEMPTS="9")

        assert reported() == {"E002": "settings.NOTIFICATIONS: MAX_ATTEMPTS must be a whole number"}

    def test_a_number_that_does_not_apply_is_reported(self, change: Change) -> None:
        applied = {"MAX_ATTEMPTS": 5, "RETENTION_DAYS": 0, "RETRY_JITTER": 0, "LEASE": timedelta(minutes=2)}
        applied |= {"RETRY_BASE_DELAY": 600, "RETRY_MAX_DELAY": 600}
        cases: dict[tuple[str, Any], str] = {
            ("MAX_ATTEMPTS", 0): "MAX_ATTEMPTS is 0, but 5 applies: zero or less means unset.",
            ("RETENTION_DAYS", -1): "RETENTION_DAYS is -1, but 0 applies: zero or less means unset.",
            ("LEASE", timedelta(0)): "LEASE is 0, but 60 applies: zero or less means unset.",
            ("RETRY_MAX_DELAY", 60): "RETRY_MAX_DELAY is 60, but 600 applies: RETRY_BASE_DELAY is longer.",
        }

        for (name, value), text in cases.items():
            change(**applied | {name: value})
            assert reported() == {"W006": text}, name
        change(**applied)
        assert reported() == {}

    def test_e003_lease_must_outlast_a_send_and_its_settling(self, change: Change) -> None:
        ids: dict[object, list[str]] = {}
        for lease in (10, 13.3, timedelta(seconds=9.9), 13.4):
            change(LEASE=lease, TOTAL_TIMEOUT=10)
            ids[lease] = list(reported())

        assert ids == {10: ["E003"], 13.3: ["E003"], timedelta(seconds=9.9): ["E003"], 13.4: []}

    def test_e004_encryption_keys_must_not_be_empty(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[])

        assert list(reported()) == ["E004"]

    def test_e005_provider_must_be_importable(self, change: Change) -> None:
        for path in ("no.such.Provider", "notifications.providers.memory.NoSuch", "nodots"):
            change(PROVIDERS={"feishu": path})

            assert list(reported()) == ["E005"], path
            assert "feishu" in reported()["E005"]

    def test_e005_provider_must_take_its_options(self, change: Change) -> None:
        bot = "notifications.providers.feishu.bot.FeishuBotProvider"
        for path, options in ((FLOW, {"titel": "x"}), (MEMORY, {"title": "x"}), (bot, {"format": "poem"})):
            change(PROVIDERS={"feishu": {"BACKEND": path, "OPTIONS": options}})

            assert list(reported()) == ["E005"], (path, options)

    def test_e006_user_key_must_be_an_integer_a_uuid_or_a_text(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys: tuple[tuple[Any, list[str]], ...] = (
            (models.BigAutoField(primary_key=True), []),
            (models.UUIDField(primary_key=True), []),
            (models.CharField(primary_key=True, max_length=40), []),
            (models.DateField(primary_key=True), ["E006"]),
        )
        for key, codes in keys:
            meta = type("Meta", (), {"pk": key})
            model = type("Model", (), {"_meta": meta})
            monkeypatch.setattr("notifications.user_keys.get_user_model", lambda model=model: model)

            assert list(reported()) == codes, key

    def test_e007_sandbox_origins_are_refused_in_production(self, change: Change) -> None:
        change(SANDBOX_ORIGINS=["http://127.0.0.1:9000"])

        assert reported() == {}
        assert list(reported(deploy=True)) == ["E007"]
        assert "http://127.0.0.1:9000" in reported(deploy=True)["E007"]

    def test_e008_encryption_keys_must_be_fernet_keys(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[*service_options().encryption_keys, "canary-no-key"])

        assert reported() == {"E008": "NOTIFICATIONS['ENCRYPTION_KEYS'] must hold Fernet keys"}

    def test_e009_alert_webhook_must_be_a_bots(self, change: Change) -> None:
        change(ALERT_FEISHU_WEBHOOK="https://open.feishu.cn/elsewhere")

        assert reported() == {"E009": "ALERT_FEISHU_WEBHOOK must be /open-apis/bot/v2/hook/ and a key."}

    def test_e009_accepts_every_host_of_bots(self, change: Change) -> None:
        for host in ("open.feishu.cn", "open.larksuite.com", "open.larkoffice.com"):
            change(ALERT_FEISHU_WEBHOOK=f"https://{host}/open-apis/bot/v2/hook/canary0123456789")

            assert reported() == {}, host

    def test_e020_inactive_users_is_one_of_two_words(self, change: Change) -> None:
        change(INACTIVE_USERS="Skip")

        assert reported() == {"E020": "INACTIVE_USERS must be send or skip."}

    def test_e024_senders_is_one_of_two_words(self, change: Change) -> None:
        change(SENDERS="processes")

        assert reported() == {"E024": "SENDERS must be loop or threads."}

    def test_e026_nudge_is_one_of_five_words(self, change: Change) -> None:
        change(NUDGE="listen")

        assert reported() == {"E026": "NUDGE must be auto, notify, redis, celery or none."}

    def test_e029_events_endpoint_needs_the_channel_webhook(self, change: Change) -> None:
        change(EVENTS_ENDPOINT="crm")
        assert reported() == {}

        change(PROVIDERS={"feishu": PROVIDERS["feishu"]})
        assert reported() == {"E029": "EVENTS_ENDPOINT needs a provider of the channel webhook in PROVIDERS."}

    def test_e025_share_and_reserve_are_parts_of_the_slots(self, change: Change) -> None:
        change(RECIPIENT_SHARE=1.5)
        assert reported() == {"E025": "RECIPIENT_SHARE is a part of the slots: at most 1."}

        change(RECIPIENT_SHARE=1.0, SLOT_RESERVE=1.0)
        assert reported() == {"E025": "SLOT_RESERVE is a part of the slots: less than 1."}

    @pytest.mark.parametrize("value", ["http://example.com", "example.com", "https://a b", "https://a>", "https://"])
    def test_e021_unsubscribe_url_is_an_address_that_a_header_can_have(self, change: Change, value: str) -> None:
        change(UNSUBSCRIBE_URL=value)

        assert list(reported()) == ["E021"]

    @pytest.mark.parametrize(
        "host", ["https://a.example", "a.example/x", "A.example", "10.0.0.1", "u@a.example", "a", ""]
    )
    def test_e022_feishu_hosts_are_names(self, change: Change, host: str) -> None:
        change(FEISHU_HOSTS=["feishu.corp.example:8443", host])

        assert reported() == {
            "E022": f"FEISHU_HOSTS: {host!r} must be a host name in small letters, without https:// and path."
        }

    @pytest.mark.parametrize(
        "value",
        ["proxy:3128", "https://proxy:3128", "socks5://proxy:1080", "http://proxy", "http://:3128", "http://proxy:0",
         "http://proxy:99999", "http://proxy:3128/path", "http://u:canary@proxy", "http://proxy:3128?a=canary"],
    )  # fmt: skip
    def test_e023_http_proxy_is_an_address_and_is_not_shown(self, change: Change, value: str) -> None:
        change(HTTP_PROXY=value)

        assert reported()["E023"] == "HTTP_PROXY must be http://host:port or http://user:password@host:port."

    def test_e010_database_must_be_postgresql(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Sqlite:
            vendor = "sqlite"

        monkeypatch.setattr("notifications.checks.connections", {"default": Sqlite})

        assert reported() == {
            "E010": "Notifications need PostgreSQL, because the claim works only there; DATABASES['default'] is sqlite."
        }

    def test_e011_composer_must_be_importable(self, change: Change) -> None:
        for path in ("no.such.composer", "notifications.ingest.triggers.nothing"):
            change(TRIGGER_COMPOSER=path)

            assert list(reported()) == ["E011"], path

    def test_e011_trigger_words_need_a_composer(self, change: Change) -> None:
        change(TRIGGER_COMPOSER="")

        assert reported() == {"E011": "TRIGGER_COMPOSER is not set. Every trigger is refused."}

    def test_e012_rate_limit_must_be_readable(self, change: Change) -> None:
        for text in ("often", "5/fortnight", "x/second"):
            change(RATE_LIMITS={"feishu": text, "email": "1/second", "webhook": ""})

            error = f"RATE_LIMITS: feishu: {text!r} is no rate limit such as 5/second;100/minute."
            assert reported() == {"E012": error}

    def test_e013_fallback_text_must_be_visible_and_without_a_link(self, change: Change) -> None:
        for text in ("\u200b", "see https://elsewhere.example"):
            change(FALLBACK_TEXT=text)

            assert list(reported()) == ["E013"], text

    def test_w002_old_name_of_a_key(self, change: Change) -> None:
        change(FEISHU_TITLE="x")

        assert reported() == {"W002": "NOTIFICATIONS['FEISHU_TITLE'] is now called 'MESSAGE_TITLE'."}

    def test_w003_moved_composer(self, change: Change) -> None:
        change(TRIGGER_COMPOSER="notifications.composer.compose")

        assert list(reported()) == ["W003"]

    def test_i001_no_composer_in_a_deployment(self, settings: Settings) -> None:
        settings.NOTIFICATIONS = {"ENCRYPTION_KEYS": settings.NOTIFICATIONS["ENCRYPTION_KEYS"]}

        assert reported() == {}
        assert list(reported(deploy=True)) == ["I001"]

    def test_an_unknown_key_stops_no_other_check_from_running(self, change: Change) -> None:
        change(MAX_ATEMPTS=9, SANDBOX_ORIGINS=["http://127.0.0.1:9000"])

        assert list(reported(deploy=True)) == ["E001"]
