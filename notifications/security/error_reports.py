"""Django's error pages and mails without secrets; also with DEBUG on, for developers' logs and screens get shared."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from notifications.security.log_redaction import redact_text


class Filter(SafeExceptionReporterFilter):
    """Hides what is declared sensitive, and by name whatever an early failure left undeclared."""

    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|WEBHOOK", re.IGNORECASE)

    def is_active(self, request: HttpRequest | None) -> bool:
        """Hide always."""
        return True

    def get_post_parameters(self, request: HttpRequest | None) -> Any:
        """Return what was posted; a database that is away fails a request before its view can declare anything."""
        return self._without_secrets(super().get_post_parameters(request))

    def get_cleansed_multivaluedict(self, request: HttpRequest, multivaluedict: Any) -> Any:
        """Return the same for a variable that holds it."""
        return self._without_secrets(super().get_cleansed_multivaluedict(request, multivaluedict))

    def _without_secrets(self, posted: Any) -> dict[str, Any]:
        return {
            name: self.cleansed_substitute if self.hidden_settings.search(name) else value
            for name, value in posted.items()
        }


class Reporter(ExceptionReporter):
    """Blacks out what stands in the text itself: addresses with passwords in settings, webhooks in messages."""

    def get_traceback_html(self) -> SafeString:
        """Return the page."""
        return SafeString(redact_text(super().get_traceback_html()))

    def get_traceback_text(self) -> SafeString:
        """Return the text, for mails and for clients that are no browsers."""
        return SafeString(redact_text(super().get_traceback_text()))
