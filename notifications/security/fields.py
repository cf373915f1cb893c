"""A model field that stores a secret encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models.query_utils import DeferredAttribute

from notifications.security.secrets import Secret

DUMP_PREFIX = "fernet:"
"""Prefix of ciphertext in fixtures."""

if TYPE_CHECKING:
    _TextField = models.TextField[Any, Any]  # Django's own class cannot be subscripted at run time
else:
    _TextField = models.TextField


class _SecretAttribute(DeferredAttribute):
    """Converts plain text to a Secret when it is assigned, so that no model instance contains the plain text."""

    field: SecretField

    def __set__(self, instance: models.Model, value: object) -> None:
        instance.__dict__[self.field.attname] = Secret.of(value) if isinstance(value, str) else value


class SecretField(_TextField):
    """A text column that contains ciphertext. In Python its value is a `Secret`."""

    descriptor_class = _SecretAttribute

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Secret | None:
        """Return the ciphertext of the database as a Secret. It is decrypted only by `Secret.reveal`."""
        return None if value is None else Secret(value)

    def get_prep_value(self, value: object) -> str | None:
        """Return the ciphertext for the database. Plain text is encrypted."""
        if value is None:
            return None
        return value.ciphertext if isinstance(value, Secret) else Secret.of(str(value)).ciphertext

    def value_to_string(self, obj: models.Model) -> str:
        """Return the ciphertext for `dumpdata`, never the plain text."""
        secret = self.value_from_object(obj)
        return DUMP_PREFIX + secret.ciphertext if secret else ""

    def to_python(self, value: Any) -> Any:
        """Return the value of a fixture: ciphertext that `dumpdata` wrote, or plain text to encrypt."""
        if isinstance(value, str) and value.startswith(DUMP_PREFIX):
            return Secret(value.removeprefix(DUMP_PREFIX))
        return value
