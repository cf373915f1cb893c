"""The options of the app with their defaults and documentation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from notifications.conf.values import ProviderConfig, coerce

DEFAULT_FALLBACK_TEXT = "You have a new notification."
"""Default of FALLBACK_TEXT."""

PROVIDERS = {
    "feishu": "notifications.providers.feishu.flow.FeishuFlowProvider",
    "feishu_bot": "notifications.providers.feishu.bot.FeishuBotProvider",
    "feishu_base": "notifications.providers.feishu.base_automation.FeishuBaseProvider",
    "webhook": "notifications.providers.standard_webhooks.StandardWebhookProvider",
    "email": "notifications.providers.email.EmailProvider",
}
"""The default providers. None is called unless a user has a channel of its name."""

ANY_SITE, OWN_SITE = "any", "own"
"""Values of LINKS beside origins."""

EVENTS_CHANNEL = "webhook"
"""Channel of the endpoint that EVENTS_ENDPOINT names."""
SEND, SKIP = "send", "skip"
"""Values of INACTIVE_USERS. The second one is also a value of ORDER_AFTER_DEAD."""
BLOCK = "block"
"""Value of ORDER_AFTER_DEAD; the other one is SKIP."""
LOOP, THREADS = "loop", "threads"
"""Values of SENDERS."""
NUDGE_AUTO, NUDGE_NOTIFY, NUDGE_REDIS, NUDGE_CELERY, NUDGE_NONE = "auto", "notify", "redis", "celery", "none"
"""Values of NUDGE."""
NUDGE_WAYS = (NUDGE_NOTIFY, NUDGE_REDIS, NUDGE_CELERY)
"""The ways in which a drain can be woken, in the order in which "auto" tries them."""

BOT_FORMATS = ("card", "post", "text")
"""Message formats of a Feishu custom bot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """All options of the app. Durations are seconds; a `timedelta` is accepted as well.

    Two rules come from the Go service: zero or less means unset, so the default applies; and a `retry_max_delay` below
    `retry_base_delay` is raised to it.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A number is not finite.
    """

    max_attempts: int = 5
    """Sends per record before it is dead."""
    retry_base_delay: float = 300.0
    """Delay after the first failure. It doubles after each further one."""
    retry_max_delay: float = 1800.0
    """Upper bound of the delay between attempts."""
    retry_after_max: float = 3600.0
    """Upper bound of a provider's Retry-After; a longer one is cut."""
    summary_max_runes: int = 180
    """Code points of the summary that are kept."""
    retry_scan_batch: int = 100
    """Rows per call of `retry_feishu_notifications()` when the caller gives no limit."""
    lease: float = 60.0
    """How long a claim is valid. It must be longer than a send and its settling; then another worker may take the row.
    """
    send_slots: int = 128
    """Concurrent requests per drain."""
    recipient_share: float = 0.25
    """Part of the slots that one recipient gets before all others that wait have theirs."""
    slot_reserve: float = 0.125
    """Part of the slots that one recipient leaves free, even if nobody else waits."""
    idle_connection_ttl: float = 120.0
    """Seconds after which an idle connection to an endpoint is not used again. Routers forget idle connections, often
    after 350 s."""
    senders: str = LOOP
    """How webhooks are sent: loop, all of a process from one thread, or threads, as in earlier versions."""
    drain_budget: float = 20.0
    """How long one `deliver_due` claims new rows before it ends and queues the next one."""
    sweep_interval: float = 60.0
    """How often beat runs `deliver_due`."""
    due_age_limit: float = 300.0
    """Age of a due record at which it is overdue: /readyz fails and an alert is sent."""
    events_endpoint: str = ""
    """Label of an endpoint without a user, on the channel "webhook", that is told what becomes of each notification;
    empty: none."""
    metrics_token: str = field(default="", repr=False)
    """Bearer token that /metrics requires; empty: none."""
    alert_emails: tuple[str, ...] = ()
    """Addresses that receive alerts."""
    alert_feishu_webhook: str = field(default="", repr=False)
    """Address of a custom bot in a Feishu or Lark group that receives alerts."""
    alert_feishu_secret: str = field(default="", repr=False)
    """Signing secret of that bot, if it asks for signatures."""
    alert_window: float = 3600.0
    """Repeat interval: an alert with the same cause is sent again after this time."""
    owner_mail_from: str = ""
    """Sender of the mail that tells users that their channel was paused; empty: no such mail."""
    alert_language: str = ""
    """Language of alerts, such as zh-hans; empty: the project's LANGUAGE_CODE."""
    retention_days: int = 0
    """Days to keep final records and rejected requests after their last change; 0 or unset: forever."""
    test_interval: float = 30.0
    """A user may send one test message to their own channel in this time, over the HTTP API."""
    held_key_delay: float = 5.0
    """Delay until the next try for a row whose key another process has locked."""
    lock_wait: float = 5.0
    """How long a message that is delivered at once waits for the lock of its key, before the sweep has to send it."""
    nudge: str = NUDGE_AUTO
    """How a new record wakes a drain: notify, by LISTEN and NOTIFY of PostgreSQL; redis, by a blocking read of Redis;
    celery, with a Celery message; auto, in the first of these ways that works; none, not at all: it waits for the
    sweep."""
    nudge_ttl: float = 15.0
    """Time after which a nudge that did not arrive counts as lost."""
    redis_timeout: float = 0.25
    """Timeout of one Redis round trip, for locks and nudges."""
    redis_silence: float = 5.0
    """After a Redis failure, Redis is not called for this time."""
    probe_interval: float = 30.0
    """How often a failing endpoint is tried, with one record."""
    resume_rate: float = 10.0
    """Held records released per second after an endpoint recovered."""
    retry_jitter: float = 0.0
    """Random part added to a retry delay: 0.2 makes 300 s up to 360 s."""
    connect_timeout: float = 3.0
    """Timeout of connecting to an endpoint."""
    read_timeout: float = 5.0
    """Timeout of each read from an endpoint; the Go service's value."""
    total_timeout: float = 10.0
    """Timeout of one whole request. It also ends a response that arrives in small pieces."""
    inactive_users: str = SEND
    """What happens with messages to a user whose `is_active` is false: send or skip."""
    order_after_dead: str = SKIP
    """What a dead message does to the later ones of its order key: skip lets them go, block makes them wait until it is
    replayed or cancelled."""
    http_proxy: str = field(default="", repr=False)
    """Proxy that leads to the endpoints of webhooks and alerts: http://host:port, also with user:password@."""
    project_name: str = ""
    """Name of the product in alerts, in the User-Agent and in the title of the API documentation."""
    frontend_base_url: str = ""
    """Base of the links in messages: https://app.example.com"""
    links: tuple[str, ...] = (ANY_SITE,)
    """Where the links of `notify` may lead: "any" site, only the "own" one, or the own one and origins such as
    https://carrier.example. An event of docs/events.md always leads to the own site."""
    default_channel: str = ""
    """Channel of `notify` for a user without an endpoint; empty: the first one of PROVIDERS."""
    language_attribute: str = ""
    """Attribute of the user model that has the user's language, such as "language" or "profile.language"."""
    unsubscribe_url: str = ""
    """Page or mail address where users switch mails off, https:// or mailto:; the header List-Unsubscribe of mails."""
    event_name: str = "notification.created"
    """Event name in the fields that webhooks receive. A provider's option `event` overrides it."""
    message_title: str = "Notification"
    """Title of messages and subject of mails. A provider's option `title` overrides it."""
    action_text: str = "Open"
    """Text of the button or link. A provider's option `action_text` overrides it."""
    fallback_text: str = DEFAULT_FALLBACK_TEXT
    """Text that is sent when neither the request's summary nor its fallback can be; blank: the default."""
    feishu_bot_format: str = "card"
    """What a Feishu custom bot posts: card, post or text. Older form of the option `format` of "feishu_bot"."""
    feishu_hosts: tuple[str, ...] = ()
    """Hosts of a private Feishu, with a port if it is not 443; they may be in a private network."""
    providers: Mapping[str, ProviderConfig] = field(default_factory=lambda: dict(PROVIDERS))  # type: ignore[arg-type]
    """Channel name to its provider: a dotted path, or {"BACKEND": dotted path, "OPTIONS": keyword arguments}."""
    trigger_composer: str = ""
    """Dotted path of the function that makes notifications of a trigger; empty: triggers are refused."""
    trigger_types: tuple[str, ...] = ()
    """Values of `trigger_type` that are accepted; empty: any."""
    trigger_sources: tuple[str, ...] = ()
    """Values of a trigger's `source` that are accepted; empty: any."""
    trigger_target_types: tuple[str, ...] = ()
    """Values of a trigger's `target_type` that are accepted; empty: any."""
    rate_limits: Mapping[str, str] = field(default_factory=dict)
    """Channel name to the rate limit of its endpoints, such as "5/second;100/minute"; blank: no limit.

    It replaces the provider's own limit.
    """
    redis_url: str = field(default="", repr=False)
    """Redis for locks and nudges. Without it, the claim in PostgreSQL is the only guard."""
    redis_prefix: str = "smartmate:"
    """Prefix of every Redis key of this app. The default is the Go service's, so that both share their locks."""
    encryption_keys: tuple[str, ...] = field(default=(), repr=False)
    """Fernet keys for webhook addresses and tokens, newest first."""
    sandbox_origins: tuple[str, ...] = ()
    """Extra origins a webhook may point to, such as http://127.0.0.1:9000. For demo and tests only."""

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            object.__setattr__(self, spec.name, coerce(spec, getattr(self, spec.name)))
        object.__setattr__(self, "retry_max_delay", max(self.retry_max_delay, self.retry_base_delay))
        object.__setattr__(self, "fallback_text", self.fallback_text.strip() or DEFAULT_FALLBACK_TEXT)

    @property
    def settle_margin(self) -> float:
        """Seconds at the end of a lease in which nothing is sent: they are kept for storing the result."""
        return self.lease / 4

    @property
    def nudge_ways(self) -> tuple[str, ...]:
        """The ways in which a drain may be woken, in order. Empty: new records wait for the sweep."""
        return NUDGE_WAYS if self.nudge == NUDGE_AUTO else tuple(way for way in NUDGE_WAYS if way == self.nudge)

    @property
    def app_name(self) -> str:
        """Name of this app in front of people: "SmartMate Notifications" where PROJECT_NAME is "SmartMate"."""
        return f"{self.project_name} Notifications".strip()

    @property
    def user_agent(self) -> str:
        """The User-Agent of requests to endpoints: the ASCII words of `app_name`, joined by hyphens."""
        return "-".join(re.findall(r"[A-Za-z0-9._]+", self.app_name))

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield (check id, text) for each combination of values that cannot work."""
        if self.lease - self.settle_margin <= self.total_timeout:
            yield (
                "E003",
                "Three quarters of LEASE must be longer than TOTAL_TIMEOUT. Otherwise a slow send counts as lost and"
                " is repeated.",
            )
        if not self.encryption_keys:
            yield "E004", "ENCRYPTION_KEYS is empty: webhook addresses cannot be stored or read."
        if self.metrics_token and not re.fullmatch(r"[!-~]+", self.metrics_token):
            yield (
                "E014",
                "METRICS_TOKEN must consist of visible ASCII characters. No request can carry a blank or a line break.",
            )
        for host in self.feishu_hosts:
            if not re.fullmatch(r"([a-z0-9-]+\.)+[a-z0-9-]*[a-z][a-z0-9-]*(:[1-9]\d{0,4})?", host):
                yield "E022", f"FEISHU_HOSTS: {host!r} must be a host name in small letters, without https:// and path."
        if not re.fullmatch(r"((https://|mailto:)[!-;=?-~]+)?", self.unsubscribe_url):
            yield "E021", "UNSUBSCRIBE_URL must begin with https:// or mailto: and have no blanks or angle brackets."
        for link in self.links:
            if link not in (ANY_SITE, OWN_SITE) and not re.fullmatch(r"https?://[a-z0-9.-]+(:[1-9]\d{0,4})?", link):
                yield "E030", f"LINKS: {link!r} must be any, own, or an origin such as https://carrier.example."
        if self.default_channel and self.default_channel not in self.providers:
            yield "E028", f"DEFAULT_CHANNEL: {self.default_channel!r} has no provider."
        if self.events_endpoint and EVENTS_CHANNEL not in self.providers:
            yield "E029", f"EVENTS_ENDPOINT needs a provider of the channel {EVENTS_CHANNEL} in PROVIDERS."
        if self.inactive_users not in (SEND, SKIP):
            yield "E020", f"INACTIVE_USERS must be {SEND} or {SKIP}."
        if self.order_after_dead not in (SKIP, BLOCK):
            yield "E027", f"ORDER_AFTER_DEAD must be {SKIP} or {BLOCK}."
        if self.recipient_share > 1:
            yield "E025", "RECIPIENT_SHARE is a part of the slots: at most 1."
        if self.slot_reserve >= 1:
            yield "E025", "SLOT_RESERVE is a part of the slots: less than 1."
        if self.senders not in (LOOP, THREADS):
            yield "E024", f"SENDERS must be {LOOP} or {THREADS}."
        if self.nudge not in (NUDGE_AUTO, *NUDGE_WAYS, NUDGE_NONE):
            yield "E026", f"NUDGE must be {NUDGE_AUTO}, {', '.join(NUDGE_WAYS)} or {NUDGE_NONE}."
        if self.feishu_bot_format not in BOT_FORMATS:
            yield "E009", f"FEISHU_BOT_FORMAT must be one of {', '.join(BOT_FORMATS)}."
