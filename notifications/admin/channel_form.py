"""The form of a user's channel. Its secret fields are write-only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from notifications.channels.rules import (
    MAX_SECRET_CHARACTERS,
    ChannelSettings,
    InvalidChannel,
    apply_changes,
    encrypt_validated,
    validate_combination,
)
from notifications.conf import service_options
from notifications.models import UserNotificationChannel
from notifications.security.secrets import Secret

if TYPE_CHECKING:
    Base = forms.ModelForm[UserNotificationChannel]
else:
    Base = forms.ModelForm

SECRETS = ("new_webhook_url", "new_bearer_token")
"""Form fields whose values must not appear on a page, in a log or in an error report."""


def _secret(**kwargs: Any) -> forms.CharField:
    # With "new-password" a browser does not fill in the operator's own password.
    widget = forms.PasswordInput(attrs={"class": "vTextField", "autocomplete": "new-password", "spellcheck": "false"})
    return forms.CharField(required=False, max_length=MAX_SECRET_CHARACTERS, widget=widget, **kwargs)


def _channels() -> list[tuple[str, str]]:
    return [(name, name) for name in service_options().providers]


class ChannelForm(Base):
    """Form of a channel. An empty secret field keeps the stored secret."""

    channel = forms.ChoiceField(label=_("Channel"), choices=_channels)
    new_webhook_url = _secret(
        label=_("New webhook address"),
        help_text=_(
            "Leave empty to keep the stored address. A stored address is never shown in full. "
            "Email: leave empty to use the user's own address."
        ),
    )
    new_bearer_token = _secret(
        label=_("New token or signing secret"),
        help_text=_("Leave empty to keep the stored value. A stored value is never shown."),
    )
    clear_token = forms.BooleanField(label=_("Delete the stored token"), required=False)

    class Meta:
        """The model and its editable fields."""

        model = UserNotificationChannel
        fields = ("user", "label", "channel", "enabled", "auth_type")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance._state.adding:
            texts = {
                "new_webhook_url": (
                    _("webhook address"),
                    _("A stored address is never shown in full. Email: leave empty to use the user's own address."),
                ),
                "new_bearer_token": (_("token or signing secret"), _("A stored value is never shown.")),
            }
            for name in texts.keys() & self.fields.keys():
                label, self.fields[name].help_text = texts[name]
                self.fields[name].label = capfirst(label)

    def clean_new_webhook_url(self) -> Secret:
        """Reject an address that the channel's provider does not accept."""
        return self._encrypt("webhook_url")

    def clean_new_bearer_token(self) -> Secret:
        """Reject a token that cannot be sent or stored."""
        return self._encrypt("bearer_token")

    def clean(self) -> dict[str, Any]:
        """Reject settings that cannot be combined."""
        data = super().clean() or self.cleaned_data
        if data.get("new_bearer_token") and data.get("clear_token"):
            self.add_error("clear_token", _("Either delete the stored token or enter a new one."))
        if self.instance._state.adding and not (data.get("user") or data.get("label")):
            self.add_error("label", _("Enter a user, or a label by which the endpoint is named."))
        self.instance.channel = data.get("channel", self.instance.channel)  # the validation rules depend on it
        for name, reason in validate_combination(self._submitted_settings(), self.instance, user=data.get("user")):
            field = name if name in self.fields else f"new_{name}"
            if field not in self.errors:
                self.add_error(field, str(reason))
        return data

    def save(self, commit: bool = True) -> UserNotificationChannel:
        """Store the channel. The last test result is cleared if an endpoint setting changed."""
        self.touched = apply_changes(self._submitted_settings(), self.instance)
        return super().save(commit)

    def _submitted_settings(self) -> ChannelSettings:
        data = self.cleaned_data
        return ChannelSettings(
            enabled=data.get("enabled"),
            auth_type=data.get("auth_type") if "auth_type" in self.changed_data else None,
            webhook_url=data.get("new_webhook_url") or None,
            bearer_token=data.get("new_bearer_token") or (Secret("") if data.get("clear_token") else None),
        )

    def _encrypt(self, field: str) -> Secret:
        channel: str = self.cleaned_data.get("channel", self.instance.channel)
        try:
            return encrypt_validated(field, self.cleaned_data[f"new_{field}"], channel)
        except InvalidChannel as refused:
            raise ValidationError([str(reason) for _field, reason in refused.errors]) from None
