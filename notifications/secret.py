"""Deprecated import path of notifications.security.secrets and notifications.security.fields."""

from notifications._moved import forward

__getattr__ = forward(
    __name__, "notifications.security.secrets", "notifications.security.fields", renamed={"mask_tail": "mask_key"}
)
