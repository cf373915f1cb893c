"""Numbers and words of the service, read from `settings.NOTIFICATIONS`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

DEFAULT_FALLBACK_TEXT = "我为你生成了一份日程调整建议，请回到系统确认是否应用。"
"""Sent when neither summary nor fallback can be; the Go service's text, users' flows may match on it."""

PROVIDERS = {
    "feishu": "notifications.providers.feishu.flow.FeishuFlowProvider",
    "feishu_bot": "notifications.providers.feishu.bot.FeishuBotProvider",
    "feishu_base": "notifications.providers.feishu.base_automation.FeishuBaseProvider",
    "webhook": "notifications.providers.standard_webhooks.StandardWebhookProvider",
    "email": "notifications.providers.email.EmailProvider",
}
"""What works out of the box; none is called unless a user has a channel of its name."""
BOT_FORMATS = ("card", "post", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """Everything that can be tuned; durations are seconds (a `timedelta` is taken as well).

    Zero or less means unset: the default applies. A `retry_max_delay` below `retry_base_delay` is raised to it.
    Both rules are the Go service's. Raises TypeError or ValueError where a value is of the wrong kind.
    """

    max_attempts: int = 5
    """Sends per record before it is dead."""
    retry_base_delay: float = 300.0
    """Wait after the first failure; doubled after each further one."""
    retry_max_delay: float = 1800.0
    """No backoff is longer than this."""
    retry_after_max: float = 3600.0
    """A provider's Retry-After is believed up to this."""
    summary_max_runes: int = 180
    """Code points of the summary that are kept."""
    retry_scan_batch: int = 100
    """Rows one `retry_feishu_notifications()` takes when the caller names no limit."""
    lease: float = 60.0
    """How long a claim holds before another worker may take the row over; must outlast a send and its settling."""
    send_slots: int = 64
    """Requests in flight per drain."""
    drain_budget: float = 20.0
    """How long one `deliver_due` claims new rows before it hands over to the next."""
    sweep_interval: float = 60.0
    """How often beat runs `deliver_due`."""
    due_age_limit: float = 300.0
    """How long a record may be due before /readyz says no and a person is told."""
    metrics_token: str = field(default="", repr=False)
    """Bearer token that /metrics asks for; empty: it asks for none."""
    alert_emails: tuple[str, ...] = ()
    """Who gets a mail when something needs a person."""
    alert_feishu_webhook: str = field(default="", repr=False)
    """Custom bot of a Feishu or Lark group that is told the same."""
    alert_window: float = 3600.0
    """The same cause is told once in so long."""
    owner_mail_from: str = ""
    """Sender of the mail that tells users their channel was paused; empty: they are not told by mail."""
    alert_language: str = ""
    """Language of alerts, such as zh-hans; the project's LANGUAGE_CODE by default."""
    retention_days: int = 0
    """Days a final record is kept after its last change, and a rejected request; 0 or unset: for ever."""
    test_interval: float = 30.0
    """Each user may send one test message to their own channel in this time, over the HTTP API."""
    held_key_delay: float = 5.0
    """When to look again at a row whose key another process holds."""
    lock_wait: float = 5.0
    """How long an event waits for its key before it leaves the row to the sweep."""
    nudge_ttl: float = 15.0
    """A nudge not heard of for this long counts as lost."""
    redis_timeout: float = 0.25
    """Bound on one Redis round trip for locks and nudges."""
    redis_silence: float = 5.0
    """After Redis failed to answer, how long we do without it before asking again."""
    probe_interval: float = 30.0
    """How often an endpoint that keeps failing is tried, with one record."""
    resume_rate: float = 10.0
    """Records a second that are let go when an endpoint is well again."""
    retry_jitter: float = 0.0
    """Up to this part of a backoff is added to it at random: 0.2 makes 300 s up to 360 s."""
    connect_timeout: float = 3.0
    """Bound on reaching an endpoint."""
    read_timeout: float = 5.0
    """Bound on any silence of an endpoint; the Go service's 5 s."""
    total_timeout: float = 10.0
    """Bound on one whole request, so that an answer in drips cannot hold a slot."""
    frontend_base_url: str = ""
    """Where a user's browser finds the product, for links in messages: https://app.example.com"""
    feishu_event: str = "smartmate.schedule_adjustment_ready"
    feishu_title: str = "SmartMate 日程调整建议"
    feishu_action_text: str = "查看并确认调整"
    feishu_bot_format: str = "card"
    """What a custom bot posts: card, post or text."""
    providers: Mapping[str, str] = field(default_factory=lambda: dict(PROVIDERS))
    """Channel name to the dotted path of its provider class."""
    trigger_composer: str = "notifications.composer.compose"
    """Dotted path of the function that makes notifications of a trigger."""
    rate_limits: Mapping[str, str] = field(default_factory=dict)
    """Channel name to its endpoints' limits, such as "5/second;100/minute", instead of the provider's; blank: none."""
    redis_url: str = field(default="", repr=False)
    """Redis for locks and nudges; empty: do without (the claim alone then guards)."""
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)
    """Fernet keys for webhook addresses and tokens, newest first."""
    sandbox_origins: tuple[str, ...] = ()
    """Extra origins a webhook may point to, such as http://127.0.0.1:9000. For demo and tests only."""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            object.__setattr__(self, spec.name, _coerce(spec, getattr(self, spec.name)))
        object.__setattr__(self, "retry_max_delay", max(self.retry_max_delay, self.retry_base_delay))

    @property
    def lock_ttl(self) -> float:
        """Seconds a Redis lock lives: a little past the lease, so that the holder is seen when the lease runs out."""
        return self.lease + min(5.0, self.lease)

    @property
    def sweep_limit(self) -> float:
        """Seconds without a sweep after which one is missed: two may fail, and each takes its time."""
        return 2 * self.sweep_interval + 60.0

    @property
    def settle_margin(self) -> float:
        """Seconds of a lease kept free of sending: a result is written down in them, before others may take the row."""
        return self.lease / 4

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (check id, text) for combinations that cannot work."""
        if self.lease - self.settle_margin <= self.total_timeout:
            yield (
                "E003",
                "Three quarters of LEASE must be longer than TOTAL_TIMEOUT, or a slow send is taken for lost and"
                " repeated.",
            )
        if not self.encryption_keys:
            yield "E004", "ENCRYPTION_KEYS is empty: webhook addresses cannot be stored or read."
        if self.feishu_bot_format not in BOT_FORMATS:
            yield "E009", f"FEISHU_BOT_FORMAT must be one of {', '.join(BOT_FORMATS)}."


def _coerce(spec: dataclasses.Field[Any], value: Any) -> Any:
    default = spec.default_factory() if spec.default_factory is not dataclasses.MISSING else spec.default
    if isinstance(value, timedelta) and isinstance(default, float):
        value = value.total_seconds()
    if isinstance(default, (int, float)):
        whole = isinstance(default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise TypeError(f"{spec.name.upper()} must be {'a whole number' if whole else 'a number of seconds'}")
        if not value <= sys.float_info.max:  # NaN too
            raise ValueError(f"{spec.name.upper()} must be finite")
        return (value if whole else float(value)) if value > 0 else default
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise TypeError(f"{spec.name.upper()} must be a list of strings")
        return tuple(value)
    if isinstance(default, dict):
        if not isinstance(value, Mapping) or not all(isinstance(x, str) for pair in value.items() for x in pair):
            raise TypeError(f"{spec.name.upper()} must map names to dotted paths")
        return dict(value)
    if not isinstance(value, str):
        raise TypeError(f"{spec.name.upper()} must be a string")
    return value


def known_names() -> set[str]:
    """Return the keys that `settings.NOTIFICATIONS` may hold."""
    return {spec.name.upper() for spec in dataclasses.fields(ServiceOptions)}


@lru_cache(maxsize=1)
def service_options() -> ServiceOptions:
    """Return the options of this project.

    Raises ImproperlyConfigured naming the unknown or bad key; `manage.py check` says the same without a traceback.
    """
    raw = getattr(settings, "NOTIFICATIONS", {})
    if unknown := sorted(set(raw) - known_names()):
        raise ImproperlyConfigured(f"Unknown keys in settings.NOTIFICATIONS: {', '.join(unknown)}")
    try:
        return ServiceOptions(**{name.lower(): value for name, value in raw.items()})
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"settings.NOTIFICATIONS: {error}") from None


@receiver(setting_changed)
def _forget_options(*, setting: str, **kwargs: object) -> None:
    if setting == "NOTIFICATIONS":
        service_options.cache_clear()
