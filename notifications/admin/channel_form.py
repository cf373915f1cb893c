"""The form of a user's channel: its secrets are written here and never read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import RegexValidator
from django.utils.text import capfirst
from django.utils.translation import gettext, gettext_lazy as _, gettext_noop

from notifications.conf import service_options
from notifications.models import UserNotificationChannel
from notifications.providers.feishu import check_webhook_url
from notifications.secret import Secret
from notifications.states import AuthType, TestStatus

if TYPE_CHECKING:
    Base = forms.ModelForm[UserNotificationChannel]
else:
    Base = forms.ModelForm

PROBLEMS = (
    gettext_noop("has characters that do not belong in an address"),
    gettext_noop("is not an address"),
    gettext_noop("must begin with https://"),
    gettext_noop("must be on one of www.feishu.cn, feishu.cn, www.larksuite.com, larksuite.com"),
    gettext_noop("must have no user, query or fragment"),
    gettext_noop("must be /flow/api/trigger-webhook/ and a key"),
)
"""What `check_webhook_url` may say; listed here so that translators find it."""

SECRETS = ("new_webhook_url", "new_bearer_token")
"""Fields that no page, log or error report may show."""


def _secret(**kwargs: Any) -> forms.CharField:
    # new-password: a browser must not fill in the operator's own.
    widget = forms.PasswordInput(attrs={"class": "vTextField", "autocomplete": "new-password", "spellcheck": "false"})
    return forms.CharField(required=False, max_length=2048, widget=widget, **kwargs)


def _channels() -> list[tuple[str, str]]:
    return [(name, name) for name in service_options().providers]


class ChannelForm(Base):
    """Stores what is typed into the write-only fields, and leaves alone what is not."""

    channel = forms.ChoiceField(label=_("Channel"), choices=_channels)
    new_webhook_url = _secret(
        label=_("New webhook address"), help_text=_("Blank keeps the stored one. It is never shown again.")
    )
    new_bearer_token = _secret(
        label=_("New bearer token"),
        help_text=_("Blank keeps the stored one. It is never shown again."),
        validators=[RegexValidator(r"^[\x21-\x7e]+$", _("must be plain characters without spaces"))],
    )
    clear_token = forms.BooleanField(label=_("Delete the stored token"), required=False)

    class Meta:
        model = UserNotificationChannel
        fields = ("user", "channel", "enabled", "auth_type")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance._state.adding:
            for name, label in (("new_webhook_url", _("webhook address")), ("new_bearer_token", _("bearer token"))):
                if name in self.fields:
                    self.fields[name].label, self.fields[name].help_text = (
                        capfirst(label),
                        _("It is never shown again."),
                    )

    def clean_new_webhook_url(self) -> str:
        """Refuse an address the channel's provider would not call."""
        url: str = self.cleaned_data["new_webhook_url"]
        if url and self._channel() == "feishu" and (problem := check_webhook_url(url, service_options())):
            raise ValidationError(gettext(problem))
        return _storable(url)

    def clean_new_bearer_token(self) -> str:
        """Refuse a token that cannot be stored."""
        return _storable(self.cleaned_data["new_bearer_token"])

    def clean(self) -> dict[str, Any]:
        """Refuse settings that cannot work together."""
        data = super().clean() or self.cleaned_data
        new_token, clear = data.get("new_bearer_token"), data.get("clear_token")
        if new_token and clear:
            self.add_error("clear_token", _("Either delete the token or enter a new one."))
        elif (
            data.get("auth_type") == AuthType.BEARER
            and "new_bearer_token" not in self.errors
            and not new_token
            and (clear or not self.instance.bearer_token)
        ):
            self.add_error("new_bearer_token", _("This authentication needs a token."))
        if data.get("enabled") and "new_webhook_url" not in self.errors:
            if not data.get("new_webhook_url") and not self.instance.webhook_url:
                self.add_error("new_webhook_url", _("A channel that is switched on needs an address."))
        return data

    def save(self, commit: bool = True) -> UserNotificationChannel:
        """Store the secrets that were entered; what the last test said of the old ones is forgotten."""
        channel, data = self.instance, self.cleaned_data
        if data["new_webhook_url"]:
            channel.webhook_url = data["new_webhook_url"]
        if data["new_bearer_token"] or data["clear_token"]:
            channel.bearer_token = data["new_bearer_token"]
        if {"auth_type", *SECRETS, "clear_token"} & set(self.changed_data):
            channel.last_test_status, channel.last_test_error, channel.last_test_at = TestStatus.NEVER, "", None
        return super().save(commit)

    def untouched_secrets(self) -> set[str]:
        """Return the columns of the secrets that nobody entered or deleted here."""
        data = self.cleaned_data
        touched = {
            "webhook_url": data["new_webhook_url"],
            "bearer_token": data["new_bearer_token"] or data["clear_token"],
        }
        return {name for name, value in touched.items() if not value}

    def _channel(self) -> str:
        chosen: str = self.cleaned_data.get("channel", self.instance.channel)
        return chosen


def _storable(value: str) -> str:
    try:
        Secret.of(value)
    except ImproperlyConfigured:
        raise ValidationError(_("cannot be stored: no encryption key is configured")) from None
    return value
