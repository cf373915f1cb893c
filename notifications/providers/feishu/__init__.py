"""Feishu and Lark: flows, custom bots and Base automations."""

from notifications._moved import forward

__getattr__ = forward(__name__, "notifications.providers.feishu.flow", renamed={"RULES": "ADDRESS_RULES"})
