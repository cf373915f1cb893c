"""Webhook addresses and tokens: encrypted in the database, and not shown unless code asks for the plain text."""

from __future__ import annotations

from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.core.exceptions import ImproperlyConfigured

from notifications.conf import service_options
from notifications.exceptions import NotificationError

_UNREADABLE = "not readable with the configured ENCRYPTION_KEYS"


class SecretUnreadable(NotificationError):
    """The secret cannot be decrypted with any of ENCRYPTION_KEYS."""


@lru_cache(maxsize=4)
def _fernet(keys: tuple[str, ...]) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise ImproperlyConfigured("NOTIFICATIONS['ENCRYPTION_KEYS'] must hold Fernet keys") from None


@lru_cache(maxsize=1000)
def _decrypt(ciphertext: str, keys: tuple[str, ...]) -> str:
    """Return the plain text. The latest ones stay in memory: deciphering takes longer than sending the request."""
    return _fernet(keys).decrypt(ciphertext.encode()).decode()


class Secret:
    """An encrypted text. Only `reveal` returns the plain text; `str` and `repr` do not.

    Args:
        ciphertext: A Fernet token, or an empty string for a blank value.
    """

    __slots__ = ("ciphertext",)

    def __init__(self, ciphertext: str) -> None:
        self.ciphertext = ciphertext

    @classmethod
    def of(cls, plain: str) -> Secret:
        """Return the secret for a plain text, encrypted with the first of ENCRYPTION_KEYS.

        Args:
            plain: The text; a blank text stays blank.

        Raises:
            ImproperlyConfigured: There is no valid key.
        """
        return cls(_fernet(service_options().encryption_keys).encrypt(plain.encode()).decode() if plain else "")

    def reveal(self) -> str:
        """Return the plain text; an empty string for a blank secret.

        Raises:
            SecretUnreadable: No key decrypts it.
        """
        if not self.ciphertext:
            return ""
        try:
            return _decrypt(self.ciphertext, service_options().encryption_keys)
        except (InvalidToken, ImproperlyConfigured):
            raise SecretUnreadable(_UNREADABLE) from None

    def rotated(self) -> Secret:
        """Return the secret encrypted with the first key; itself if it is blank or uses that key already.

        Raises:
            SecretUnreadable: No key decrypts it.
            ImproperlyConfigured: There is no valid key.
        """
        keys = service_options().encryption_keys
        all_keys, token = _fernet(keys), self.ciphertext.encode()
        if not token:
            return self
        try:
            _fernet(keys[:1]).decrypt(token)
        except InvalidToken:
            try:
                return Secret(all_keys.rotate(token).decode())
            except InvalidToken:
                raise SecretUnreadable(_UNREADABLE) from None
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
    """Return the first and last four characters of a key, as in "abcd...wxyz". A short key is hidden completely."""
    return f"{value[:4]}...{value[-4:]}" if len(value) >= 16 else "********" if value else ""
