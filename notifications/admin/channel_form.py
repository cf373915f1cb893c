"""The form of a user's channel: its secrets are written here and never read back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from notifications.channels.rules import LONGEST, Refused, Settings, apply, conflicts, seal
from notifications.conf import service_options
from notifications.models import UserNotificationChannel
from notifications.security.secrets import Secret

if TYPE_CHECKING:
    Base = forms.ModelForm[UserNotificationChannel]
else:
    Base = forms.ModelForm

SECRETS = ("new_webhook_url", "new_bearer_token")
"""Fields that no page, log or error report may show."""


def _secret(**kwargs: Any) -> forms.CharField:
    # new-password: a browser must not fill in the operator's own.
    widget = forms.PasswordInput(attrs={"class": "vTextField", "autocomplete": "new-password", "spellcheck": "false"})
    return forms.CharField(required=False, max_length=LONGEST, widget=widget, **kwargs)


def _channels() -> list[tuple[str, str]]:
    return [(name, name) for name in service_options().providers]


class ChannelForm(Base):
    """Stores what is typed into the write-only fields, and leaves alone what is not."""

    channel = forms.ChoiceField(label=_("Channel"), choices=_channels)
    new_webhook_url = _secret(
        label=_("New webhook address"),
        help_text=_("Blank keeps the stored one. It is never shown again. For email: blank for the user's own."),
    )
    new_bearer_token = _secret(
        label=_("New token or signing secret"),
        help_text=_("Blank keeps the stored one. It is never shown again."),
    )
    clear_token = forms.BooleanField(label=_("Delete the stored token"), required=False)

    class Meta:
        """The model and its editable fields."""

        model = UserNotificationChannel
        fields = ("user", "channel", "enabled", "auth_type")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance._state.adding:
            words = {
                "new_webhook_url": (
                    _("webhook address"),
                    _("It is never shown again. For email: blank for the user's own."),
                ),
                "new_bearer_token": (_("token or signing secret"), _("It is never shown again.")),
            }
            for name in words.keys() & self.fields.keys():
                label, self.fields[name].help_text = words[name]
                self.fields[name].label = capfirst(label)

    def clean_new_webhook_url(self) -> Secret:
        """Refuse an address the channel's provider would not call."""
        return self._sealed("webhook_url")

    def clean_new_bearer_token(self) -> Secret:
        """Refuse a token that cannot be sent or stored."""
        return self._sealed("bearer_token")

    def clean(self) -> dict[str, Any]:
        """Refuse settings that cannot work together."""
        data = super().clean() or self.cleaned_data
        if data.get("new_bearer_token") and data.get("clear_token"):
            self.add_error("clear_token", _("Either delete the token or enter a new one."))
        self.instance.channel = data.get("channel", self.instance.channel)  # what is refused depends on it
        for name, reason in conflicts(self._wanted(), self.instance, user=data.get("user")):
            field = name if name in self.fields else f"new_{name}"
            if field not in self.errors:
                self.add_error(field, str(reason))
        return data

    def save(self, commit: bool = True) -> UserNotificationChannel:
        """Store the secrets that were entered; what the last test said of the old ones is forgotten."""
        self.touched = apply(self._wanted(), self.instance)
        return super().save(commit)

    def _wanted(self) -> Settings:
        data = self.cleaned_data
        return Settings(
            enabled=data.get("enabled"),
            auth_type=data.get("auth_type") if "auth_type" in self.changed_data else None,
            webhook_url=data.get("new_webhook_url") or None,
            bearer_token=data.get("new_bearer_token") or (Secret("") if data.get("clear_token") else None),
        )

    def _sealed(self, field: str) -> Secret:
        channel: str = self.cleaned_data.get("channel", self.instance.channel)
        try:
            return seal(field, self.cleaned_data[f"new_{field}"], channel)
        except Refused as refused:
            raise ValidationError([str(reason) for _field, reason in refused.errors]) from None
