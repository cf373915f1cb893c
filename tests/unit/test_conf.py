"""Options, and the checks that name what is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from pytest_django import Settings

from notifications.conf import ServiceOptions, known_names, service_options

Change = Callable[..., None]
NUMBERS = sorted(spec.name for spec in dataclasses.fields(ServiceOptions) if isinstance(spec.default, (int, float)))
WHOLE = sorted(spec.name for spec in dataclasses.fields(ServiceOptions) if isinstance(spec.default, int))
DURATIONS = sorted(set(NUMBERS) - set(WHOLE))


def made(**fields: Any) -> ServiceOptions:
    return ServiceOptions(**fields)


def found(*, deploy: bool = False) -> dict[str, str]:
    """Return our checks' messages by id."""
    messages = checks.run_checks(include_deployment_checks=deploy)
    return {str(one.id).removeprefix("notifications."): one.msg for one in messages if "notifications." in str(one.id)}


class TestServiceOptions:
    def test_the_defaults_are_the_go_services(self) -> None:
        options = ServiceOptions()

        assert (options.max_attempts, options.retry_base_delay, options.retry_max_delay) == (5, 300, 1800)
        assert (options.summary_max_runes, options.retry_scan_batch) == (180, 100)

    @pytest.mark.parametrize("name", NUMBERS)
    @pytest.mark.parametrize("value", [0, -1])
    def test_zero_or_less_means_the_default(self, name: str, value: int) -> None:
        assert getattr(made(**{name: value}), name) == getattr(ServiceOptions(), name)

    @pytest.mark.parametrize("name", DURATIONS)
    def test_a_duration_may_be_a_timedelta_or_a_whole_number(self, name: str) -> None:
        # A maximum below the base delay would be raised to it.
        assert getattr(made(**{"retry_base_delay": 1, name: timedelta(minutes=90)}), name) == 5400.0
        assert isinstance(getattr(made(**{name: 7}), name), float)

    @pytest.mark.parametrize("value", [timedelta(0), timedelta(seconds=-1)])
    def test_no_time_at_all_means_the_default(self, value: timedelta) -> None:
        assert made(lease=value).lease == 60.0

    def test_a_maximum_below_the_base_is_raised_to_it(self) -> None:
        assert made(retry_base_delay=600, retry_max_delay=60).retry_max_delay == 600

    @pytest.mark.parametrize("name", NUMBERS)
    @pytest.mark.parametrize("value", ["5", None, True, [5], float("nan"), float("inf"), 1j])
    def test_what_is_no_number_is_refused_by_name(self, name: str, value: object) -> None:
        with pytest.raises((TypeError, ValueError), match=name.upper()):
            made(**{name: value})

    @pytest.mark.parametrize("name", WHOLE)
    @pytest.mark.parametrize("value", [1.5, 5.0, timedelta(seconds=5)])
    def test_a_count_must_be_whole(self, name: str, value: object) -> None:
        with pytest.raises(TypeError, match=f"{name.upper()} must be a whole number"):
            made(**{name: value})

    def test_a_number_no_float_can_hold_is_refused_by_name(self) -> None:
        with pytest.raises((TypeError, ValueError), match="RETRY_BASE_DELAY"):
            made(retry_base_delay=10**400)

    @pytest.mark.parametrize("name", ["frontend_base_url", "event_name", "redis_url"])
    @pytest.mark.parametrize("value", [None, 5, b"x", ["x"]])
    def test_what_is_no_text_is_refused_by_name(self, name: str, value: object) -> None:
        with pytest.raises(TypeError, match=f"{name.upper()} must be a string"):
            made(**{name: value})

    @pytest.mark.parametrize("name", ["encryption_keys", "sandbox_origins"])
    @pytest.mark.parametrize("value", [None, "key", [5], {"a": "b"}])
    def test_what_is_no_list_of_texts_is_refused_by_name(self, name: str, value: object) -> None:
        with pytest.raises(TypeError, match=f"{name.upper()} must be a list of strings"):
            made(**{name: value})

    @pytest.mark.parametrize("value", [None, "feishu", ["a.B"], {"feishu": 5}, {5: "a.B"}])
    def test_what_is_no_map_of_providers_is_refused_by_name(self, value: object) -> None:
        with pytest.raises(TypeError, match=r"PROVIDERS.* dotted path"):
            made(providers=value)

    def test_no_secret_is_in_its_repr(self) -> None:
        shown = repr(made(redis_url="redis://:hunter2@host", encryption_keys=["canary"]))

        assert "hunter2" not in shown
        assert "canary" not in shown

    def test_a_lock_outlives_the_lease(self) -> None:
        assert made(lease=60).lock_ttl > 60
        assert made(lease=0.5).lock_ttl > 0.5


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

    def test_no_setting_at_all_is_the_defaults(self, settings: Settings) -> None:
        del settings.NOTIFICATIONS
        service_options.cache_clear()

        assert service_options() == ServiceOptions()

    def test_known_names_are_the_upper_case_fields(self) -> None:
        assert {"MAX_ATTEMPTS", "ENCRYPTION_KEYS", "PROVIDERS"} <= known_names()
        assert all(name.isupper() for name in known_names())


class TestChecks:
    def test_the_project_has_nothing_to_complain_of(self) -> None:
        assert found(deploy=True) == {}

    def test_e001_an_unknown_key(self, change: Change) -> None:
        change(MAX_ATEMPTS=9)

        assert found() == {"E001": "Unknown key in NOTIFICATIONS: MAX_ATEMPTS."}

    def test_e002_a_value_of_the_wrong_kind(self, change: Change) -> None:
        change(MAX_ATTEMPTS="9")

        assert found() == {"E002": "settings.NOTIFICATIONS: MAX_ATTEMPTS must be a whole number"}

    @pytest.mark.parametrize("lease", [10, 13.3, timedelta(seconds=9.9)])
    def test_e003_a_lease_that_does_not_outlast_a_send_and_its_settling(self, change: Change, lease: object) -> None:
        change(LEASE=lease, TOTAL_TIMEOUT=10)

        assert list(found()) == ["E003"]
        assert "LEASE" in found()["E003"]

    def test_a_lease_that_outlasts_a_send_and_its_settling_is_fine(self, change: Change) -> None:
        change(LEASE=13.4, TOTAL_TIMEOUT=10)

        assert found() == {}

    def test_e004_no_key_to_encrypt_with(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[])

        assert list(found()) == ["E004"]

    @pytest.mark.parametrize("path", ["no.such.Provider", "notifications.providers.memory.NoSuch", "nodots"])
    def test_e005_a_provider_that_cannot_be_imported(self, change: Change, path: str) -> None:
        change(PROVIDERS={"feishu": path})

        assert list(found()) == ["E005"]
        assert "feishu" in found()["E005"]

    def test_e006_a_user_model_without_a_whole_number_for_a_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Meta:
            pk = models.UUIDField()

        class Odd:
            _meta = Meta

        monkeypatch.setattr("notifications.checks.get_user_model", lambda: Odd)

        assert list(found()) == ["E006"]

    def test_e007_sandbox_origins_in_production(self, change: Change) -> None:
        change(SANDBOX_ORIGINS=["http://127.0.0.1:9000"])

        assert found() == {}
        assert list(found(deploy=True)) == ["E007"]
        assert "http://127.0.0.1:9000" in found(deploy=True)["E007"]

    def test_e008_an_encryption_key_that_is_none(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[*service_options().encryption_keys, "canary-no-key"])

        assert found() == {"E008": "NOTIFICATIONS['ENCRYPTION_KEYS'] must hold Fernet keys"}

    def test_e009_an_address_for_alerts_that_is_no_bots(self, change: Change) -> None:
        change(ALERT_FEISHU_WEBHOOK="https://open.feishu.cn/elsewhere")

        assert found() == {"E009": "ALERT_FEISHU_WEBHOOK must be /open-apis/bot/v2/hook/ and a key."}

    @pytest.mark.parametrize("path", ["no.such.composer", "notifications.composer.nothing"])
    def test_e011_a_composer_that_cannot_be_imported(self, change: Change, path: str) -> None:
        change(TRIGGER_COMPOSER=path)

        assert list(found()) == ["E011"]

    @pytest.mark.parametrize("text", ["often", "5/fortnight", "x/second"])
    def test_e012_a_rate_limit_that_cannot_be_read(self, change: Change, text: str) -> None:
        change(RATE_LIMITS={"feishu": text, "email": "1/second", "webhook": ""})

        assert found() == {"E012": f"RATE_LIMITS: feishu: {text!r} is no rate limit such as 5/second;100/minute."}

    def test_e010_another_database_than_postgresql(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Sqlite:
            vendor = "sqlite"

        monkeypatch.setattr("notifications.checks.connections", {"default": Sqlite})

        assert found() == {
            "E010": "Notifications need PostgreSQL, because the claim works only there; DATABASES['default'] is sqlite."
        }

    def test_a_bad_key_keeps_no_other_check_from_running(self, change: Change) -> None:
        change(MAX_ATEMPTS=9, SANDBOX_ORIGINS=["http://127.0.0.1:9000"])

        assert list(found(deploy=True)) == ["E001"]
