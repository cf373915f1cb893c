"""Django's error pages and error mails without secrets.

The classes work with DEBUG = True too, because developers share their logs and screens.
"""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from notifications.security.log_redaction import redact_text


class Filter(SafeExceptionReporterFilter):
    """Hides settings, variables and POST parameters that are declared sensitive or have a sensitive name.

    Use it as DEFAULT_EXCEPTION_REPORTER_FILTER.
    """

    hidden_settings = re.compile(f"{SafeExceptionReporterFilter.hidden_settings.pattern}|WEBHOOK", re.IGNORECASE)

    def is_active(self, request: HttpRequest | None) -> bool:
        """Return True: hide always, also with DEBUG = True."""
        return True

    def get_post_parameters(self, request: HttpRequest | None) -> Any:
        """Return the POST parameters without secrets.

        Names are checked too, because a request can fail before its view declares its sensitive parameters: for
        instance when the database is unreachable.
        """
        return self._hide_sensitive_names(super().get_post_parameters(request))

    def get_cleansed_multivaluedict(self, request: HttpRequest, multivaluedict: Any) -> Any:
        """Return a variable that holds POST parameters, without secrets."""
        return self._hide_sensitive_names(super().get_cleansed_multivaluedict(request, multivaluedict))

    def _hide_sensitive_names(self, parameters: Any) -> dict[str, Any]:
        return {
            name: self.cleansed_substitute if self.hidden_settings.search(name) else value
            for name, value in parameters.items()
        }


class Reporter(ExceptionReporter):
    """Removes secrets from the whole text: passwords in URLs of settings, webhook addresses in messages.

    Use it as DEFAULT_EXCEPTION_REPORTER.
    """

    def get_traceback_html(self) -> SafeString:
        """Return the HTML page without secrets."""
        return SafeString(redact_text(super().get_traceback_html()))

    def get_traceback_text(self) -> SafeString:
        """Return the plain text for mails and non-browser clients, without secrets."""
        return SafeString(redact_text(super().get_traceback_text()))
