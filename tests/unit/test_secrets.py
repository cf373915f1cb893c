"""Secrets at rest: never shown by accident, readable with any key of the list."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from notifications.security.address_secrets import mask_url
from notifications.security.secrets import Secret, SecretUnreadable, mask_key

PLAIN = "https://open.feishu.cn/open-apis/bot/v2/hook/canary-4b1e"
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
Change = Callable[..., None]


class TestSecret:
    def test_reveal_returns_the_plain_text(self) -> None:
        assert Secret.of(PLAIN).reveal() == PLAIN

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    @hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_text_can_be_encrypted(self, text: str) -> None:
        assert Secret.of(text).reveal() == text

    def test_no_conversion_to_text_shows_the_plain_text_or_the_ciphertext(self) -> None:
        secret = Secret.of(PLAIN)

        texts = [
            *(str(secret), repr(secret), ascii(secret), f"{secret}", f"{secret!r}", f"{secret!s}"),
            *("{}".format(secret), "%s" % secret),  # noqa: UP031, UP032  each way of formatting
        ]

        assert [text for text in texts if "canary" in text or secret.ciphertext in text] == []

    def test_the_plain_text_is_not_in_a_list_a_pickle_or_json(self) -> None:
        secret = Secret.of(PLAIN)

        assert "canary" not in f"{[secret]} {secret.ciphertext} {pickle.dumps(secret)!r}"
        with pytest.raises(TypeError):
            json.dumps(secret)

    def test_a_blank_text_stays_blank(self) -> None:
        secret = Secret.of("")

        assert not secret
        assert (secret.ciphertext, secret.reveal(), str(secret), repr(secret)) == ("", "", "", "<Secret: empty>")
        assert Secret.of(PLAIN)

    def test_each_encryption_of_a_text_is_different(self) -> None:
        one, other = Secret.of(PLAIN), Secret.of(PLAIN)

        assert one != other
        assert one == Secret(one.ciphertext)
        assert len({one, Secret(one.ciphertext), copy.copy(one)}) == 1
        assert one != one.ciphertext


class TestKeys:
    def test_an_old_key_in_the_list_still_decrypts(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[OLD])
        secret = Secret.of(PLAIN)

        change(ENCRYPTION_KEYS=[NEW, OLD])

        assert secret.reveal() == PLAIN

    def test_the_first_key_encrypts(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[NEW, OLD])
        secret = Secret.of(PLAIN)

        change(ENCRYPTION_KEYS=[NEW])

        assert secret.reveal() == PLAIN

    def test_without_its_key_a_secret_is_unreadable_and_the_error_shows_no_secret(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[OLD])
        secret = Secret.of(PLAIN)
        for keys in ([NEW], [], ["no key"]):
            change(ENCRYPTION_KEYS=keys)

            with pytest.raises(SecretUnreadable) as caught:
                secret.reveal()

            for hidden in ("canary", secret.ciphertext, OLD):
                assert hidden not in str(caught.value), keys

    def test_an_invalid_ciphertext_is_never_returned_as_the_value(self) -> None:
        for ciphertext in ("garbage", "gAAAAA", "é", PLAIN, "fernet:x", "\x00"):
            with pytest.raises(SecretUnreadable):
                pytest.fail(f"{ciphertext!r} was revealed as {Secret(ciphertext).reveal()!r}")

    def test_nothing_is_encrypted_without_a_valid_key(self, change: Change) -> None:
        invalid: list[list[str]] = [[], ["no key"], [""]]
        for keys in invalid:
            change(ENCRYPTION_KEYS=keys)

            with pytest.raises(ImproperlyConfigured, match="ENCRYPTION_KEYS"):
                pytest.fail(f"{keys} encrypted to {Secret.of(PLAIN).ciphertext}")


class TestMask:
    def test_a_masked_key_shows_its_ends_only_if_it_is_long(self) -> None:
        expected = {
            "": "",
            "short": "********",
            "fifteen-letters": "********",
            "abcdefgh-ijkl-wxyz": "abcd...wxyz",
        }

        assert {key: mask_key(key) for key in expected} == expected

    def test_a_masked_address_shows_neither_key_nor_query(self) -> None:
        url = "https://www.feishu.cn/flow/api/trigger-webhook/0123456789abcdef?token=canary"

        assert mask_url(url) == "https://www.feishu.cn/flow/api/trigger-webhook/0123...cdef"
        assert mask_url(url.replace("?", "/?")) == mask_url(url)

    def test_a_masked_address_does_not_show_the_user(self) -> None:
        users = ["canary", "a:canary", "a@canary"]

        masked = {user: mask_url(f"https://{user}@feishu.cn/flow/0123456789abcdef") for user in users}

        assert masked == dict.fromkeys(users, "https://********@feishu.cn/flow...cdef")

    def test_a_masked_address_shows_the_host_and_no_key_wherever_it_stands(self) -> None:
        expected = {
            "https://host.example": "https://host.example",
            "https://host.example/": "https://host.example/",
            "https://host.example/?token=canary": "https://host.example/",
            "https://host.example/canary": "https://host.example/********",
            "https://host.example/canary/": "https://host.example/********",
            "https://host.example:8443/hooks/canary": "https://host.example:8443/********",
            "https://ping.example/3f2a8b1c-canary-4d5e/start": "https://ping.example/3f2a...tart",
            "https://host.example/a@b/0123456789abcdef": "https://host.example/a@b/...cdef",
            "https://open.feishu.cn/open-apis/bot/v2/hook/": "https://open.feishu.cn/open-apis/bot/v2/hook/",
            "https://open.feishu.cn/open-apis/bot/v2/hook/canary": "https://open.feishu.cn/open-apis/bot/v2/hook/********",
        }

        assert {url: mask_url(url) for url in expected} == expected

    def test_a_text_that_is_not_an_address_is_hidden(self) -> None:
        assert mask_url("secret") == "********"
        assert mask_url("") == ""
