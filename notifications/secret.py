"""Deprecated import path of notifications.security: secrets, address_secrets and fields."""

from notifications._moved import forward

__getattr__ = forward(
    __name__,
    "notifications.security.secrets",
    "notifications.security.address_secrets",
    "notifications.security.fields",
    renamed={"mask_tail": "mask_key"},
)
