"""Webhook addresses and tokens at rest: encrypted in the database, never shown by accident."""

from __future__ import annotations

import re
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.core.exceptions import ImproperlyConfigured

from notifications.conf import service_options


class SecretUnreadable(Exception):
    """The stored secret cannot be decrypted with any of ENCRYPTION_KEYS."""


@lru_cache(maxsize=4)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise ImproperlyConfigured("NOTIFICATIONS['ENCRYPTION_KEYS'] must hold Fernet keys") from None


class Secret:
    """A value that is kept encrypted and shows itself only when asked to `reveal()`."""

    __slots__ = ("ciphertext",)

    def __init__(self, ciphertext: str) -> None:
        self.ciphertext = ciphertext

    @classmethod
    def of(cls, plain: str) -> Secret:
        """Encrypt `plain` with the newest key; a blank stays blank."""
        return cls(_fernet(service_options().encryption_keys).encrypt(plain.encode()).decode() if plain else "")

    def reveal(self) -> str:
        """Return the plain value. Raises SecretUnreadable rather than hand out ciphertext."""
        if not self.ciphertext:
            return ""
        try:
            return _fernet(service_options().encryption_keys).decrypt(self.ciphertext.encode()).decode()
        except (InvalidToken, ImproperlyConfigured):
            raise SecretUnreadable("not readable with the configured ENCRYPTION_KEYS") from None

    def rotated(self) -> Secret:
        """Return the same value under the newest key: itself when it is under that already, or blank.

        Raises SecretUnreadable when no key reads it, ImproperlyConfigured when there is none.
        """
        keys = service_options().encryption_keys
        every, token = _fernet(keys), self.ciphertext.encode()
        if not token:
            return self
        try:
            _fernet(keys[:1]).decrypt(token)
        except InvalidToken:
            try:
                return Secret(every.rotate(token).decode())
            except InvalidToken:
                raise SecretUnreadable("not readable with the configured ENCRYPTION_KEYS") from None
        return self

    def __bool__(self) -> bool:
        return bool(self.ciphertext)

    def __str__(self) -> str:
        return "********" if self.ciphertext else ""

    def __repr__(self) -> str:
        return "<Secret>" if self.ciphertext else "<Secret: empty>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.ciphertext == self.ciphertext

    def __hash__(self) -> int:
        return hash(self.ciphertext)


def mask_key(value: str) -> str:
    """Return `abcd...wxyz` for a key; short ones are hidden whole."""
    return f"{value[:4]}...{value[-4:]}" if len(value) >= 16 else "********" if value else ""


def mask_url(url: str) -> str:
    """Return the address with its last path segment and any user masked and without query: enough to tell two apart."""
    head, _, key = url.partition("?")[0].rstrip("/").rpartition("/")
    head = re.sub("//.*@", "//********@", head)
    return f"{head}/{mask_key(key)}" if head else mask_key(url)
