"""Deprecated import path of notifications.providers.feishu.bot."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.providers.feishu.bot")
