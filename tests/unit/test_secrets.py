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

from notifications.security.secrets import Secret, SecretUnreadable, mask_key, mask_url

PLAIN = "https://open.feishu.cn/open-apis/bot/v2/hook/canary-4b1e"
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
Change = Callable[..., None]


class TestSecret:
    def test_gives_back_what_it_was_given(self) -> None:
        assert Secret.of(PLAIN).reveal() == PLAIN

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    @hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_any_text_at_all(self, text: str) -> None:
        assert Secret.of(text).reveal() == text

    @pytest.mark.parametrize("show", [str, repr, "{}".format, "{!r}".format, "{!s}".format, "%s".__mod__, ascii])
    def test_never_shows_itself(self, show: Callable[[object], str]) -> None:
        secret = Secret.of(PLAIN)

        shown = show(secret)

        assert "canary" not in shown
        assert secret.ciphertext not in shown

    def test_not_in_a_list_nor_in_a_dump_of_its_fields(self) -> None:
        secret = Secret.of(PLAIN)

        assert "canary" not in f"{[secret]} {secret.ciphertext} {pickle.dumps(secret)!r}"
        with pytest.raises(TypeError):
            json.dumps(secret)

    def test_a_blank_stays_blank(self) -> None:
        secret = Secret.of("")

        assert not secret
        assert (secret.ciphertext, secret.reveal(), str(secret), repr(secret)) == ("", "", "", "<Secret: empty>")
        assert Secret.of(PLAIN)

    def test_the_same_text_is_encrypted_differently_each_time(self) -> None:
        one, other = Secret.of(PLAIN), Secret.of(PLAIN)

        assert one != other
        assert one == Secret(one.ciphertext)
        assert len({one, Secret(one.ciphertext), copy.copy(one)}) == 1
        assert one != one.ciphertext


class TestKeys:
    def test_an_old_key_that_is_second_in_the_list_still_reads(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[OLD])
        secret = Secret.of(PLAIN)

        change(ENCRYPTION_KEYS=[NEW, OLD])

        assert secret.reveal() == PLAIN

    def test_the_first_key_is_the_one_that_writes(self, change: Change) -> None:
        change(ENCRYPTION_KEYS=[NEW, OLD])
        secret = Secret.of(PLAIN)

        change(ENCRYPTION_KEYS=[NEW])

        assert secret.reveal() == PLAIN

    @pytest.mark.parametrize("keys", [[NEW], [], ["no key"]])
    def test_without_its_key_it_is_unreadable_and_says_no_more(self, change: Change, keys: list[str]) -> None:
        change(ENCRYPTION_KEYS=[OLD])
        secret = Secret.of(PLAIN)
        change(ENCRYPTION_KEYS=keys)

        with pytest.raises(SecretUnreadable) as caught:
            secret.reveal()

        assert "canary" not in str(caught.value)
        assert secret.ciphertext not in str(caught.value)
        assert OLD not in str(caught.value)

    @pytest.mark.parametrize("ciphertext", ["garbage", "gAAAAA", "é", PLAIN, "fernet:x", "\x00"])
    def test_what_is_no_ciphertext_is_never_taken_for_the_value(self, ciphertext: str) -> None:
        with pytest.raises(SecretUnreadable):
            Secret(ciphertext).reveal()

    @pytest.mark.parametrize("keys", [[], ["no key"], [""]])
    def test_nothing_is_stored_without_a_good_key(self, change: Change, keys: list[str]) -> None:
        change(ENCRYPTION_KEYS=keys)

        with pytest.raises(ImproperlyConfigured, match="ENCRYPTION_KEYS"):
            Secret.of(PLAIN)


class TestMask:
    @pytest.mark.parametrize(
        ("key", "masked"),
        [("", ""), ("short", "********"), ("fifteen-letters", "********"), ("abcdefgh-ijkl-wxyz", "abcd...wxyz")],
    )
    def test_two_keys_can_be_told_apart_and_not_read(self, key: str, masked: str) -> None:
        assert mask_key(key) == masked

    def test_an_address_is_shown_without_its_key_and_query(self) -> None:
        url = "https://www.feishu.cn/flow/api/trigger-webhook/0123456789abcdef?token=canary"

        assert mask_url(url) == "https://www.feishu.cn/flow/api/trigger-webhook/0123...cdef"
        assert mask_url(url.replace("?", "/?")) == mask_url(url)

    @pytest.mark.parametrize("user", ["canary", "a:canary", "a@canary", "a/canary"])
    def test_no_user_is_shown(self, user: str) -> None:
        assert (
            mask_url(f"https://{user}@feishu.cn/flow/0123456789abcdef") == "https://********@feishu.cn/flow/0123...cdef"
        )

    def test_what_is_no_address_is_hidden_too(self) -> None:
        assert mask_url("secret") == "********"
        assert mask_url("") == ""
