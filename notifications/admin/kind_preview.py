"""The page that shows what the templates of a kind of message become, and sends it as a test."""

from __future__ import annotations

import json
import uuid
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext, gettext_lazy as _

from notifications.api import InvalidNotification, notify
from notifications.content.templates import TemplateFailed, list_kinds, render_kind, sample_context
from notifications.models import UserNotificationChannel

TEMPLATE = "admin/notifications/usernotificationchannel/kinds.html"
MAX_CONTEXT_CHARACTERS = 100_000


class KindForm(forms.Form):
    """Which templates are rendered, with what, and where a test goes."""

    kind = forms.ChoiceField(label=_("Kind"), choices=lambda: [(kind, kind) for kind in list_kinds()])
    language = forms.ChoiceField(label=_("Language"), choices=lambda: settings.LANGUAGES)
    context = forms.CharField(
        label=_("Sample values"),
        help_text=_("JSON. By default those of sample.json beside the templates."),
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "class": "vLargeTextField"}),
        max_length=MAX_CONTEXT_CHARACTERS,
        required=False,
    )
    endpoint = forms.ModelChoiceField(
        label=_("Endpoint"),
        help_text=_("The number of the endpoint that gets the test, from the list of users' channels."),
        queryset=UserNotificationChannel.objects.none(),
        widget=forms.NumberInput,
        required=False,
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        endpoint: Any = self.fields["endpoint"]
        endpoint.queryset = UserNotificationChannel.objects.all()

    def clean_context(self) -> dict[str, Any]:
        """Return the sample values."""
        try:
            value = json.loads(self.cleaned_data["context"] or "{}")
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(_("This is no JSON: %(error)s"), params={"error": error}) from None
        if not isinstance(value, dict):
            raise forms.ValidationError(_("Enter an object, such as {}."))
        return value


def show_kinds(model_admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the form, the rendered texts of its kind, and send them as a test if the button for that was pressed.

    Args:
        model_admin: The admin of the endpoints.
        request: A GET shows the sample values of `kind`. A POST renders; with `_send` it also sends.

    Raises:
        PermissionDenied: The user may not view endpoints, or send and not change them.
    """
    may_send = model_admin.has_change_permission(request)
    if not model_admin.has_view_permission(request) or ("_send" in request.POST and not may_send):
        raise PermissionDenied
    kind = request.GET.get("kind", "")
    known = kind in list_kinds()
    initial = {"kind": kind, "language": settings.LANGUAGE_CODE, "context": sample_context(kind) if known else ""}
    form = KindForm(request.POST if request.method == "POST" else None, initial=initial)
    if not may_send:
        del form.fields["endpoint"]
    texts = None
    if form.is_valid():
        data = form.cleaned_data
        try:
            texts = render_kind(data["kind"], data["context"], data["language"])
            if "_send" in request.POST and (sent := _send(request, form)):
                return sent
        except TemplateFailed as error:
            form.add_error("kind", str(error))
    context = {
        **model_admin.admin_site.each_context(request),
        "title": _("Kinds of messages"),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "form": form,
        "kinds": list_kinds(),
        "texts": texts,
        "may_send": may_send,
    }
    return TemplateResponse(request, TEMPLATE, context)


def _send(request: HttpRequest, form: KindForm) -> HttpResponse | None:
    data = form.cleaned_data
    if not data["endpoint"]:
        form.add_error("endpoint", _("Enter an endpoint."))
        return None
    try:
        [result] = notify(
            data["endpoint"],
            kind=data["kind"],
            context=data["context"],
            language=data["language"],
            key=f"kind-test:{uuid.uuid4()}",
        )
    except InvalidNotification as error:
        for _name, reason in error.errors:
            form.add_error(None, str(reason))
        return None
    messages.info(request, gettext("The test message was requested. This page shows what becomes of it."))
    return HttpResponseRedirect(reverse("admin:notifications_notificationrecord_change", args=[result.record_id]))
