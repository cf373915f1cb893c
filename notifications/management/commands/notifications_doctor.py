"""Check the settings, PostgreSQL, Redis, the broker and the workers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.management.commands._base import Command as Base
from notifications.monitoring.diagnostics import OK, examine
from notifications.monitoring.diagnostics.check_result import ERROR, Sign


class Command(Base):
    """Reports each problem and its remedy. Changes nothing."""

    about = _(
        "Check settings, PostgreSQL, migrations, sweeps, workers, encryption keys, Redis and the broker. Report each "
        "problem and its remedy. Nothing is changed."
    )
    exit_codes = _("Exit codes: 0 no problem, warnings are possible; 1 at least one problem; 2 invalid arguments.")
    requires_system_checks = ()  # the command runs them itself and reports their messages

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument("--json", action="store_true", help=gettext("Print the report as JSON."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Check and report. Fail if there is a problem."""
        try:
            signs = list(examine())
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps([asdict(sign) for sign in signs], ensure_ascii=False, indent=2))
        else:
            self._write(signs)
        if problems := sum(sign.state == ERROR for sign in signs):
            text = ngettext("%(count)d problem found", "%(count)d problems found", problems)
            raise CommandError(text % {"count": problems})

    def _write(self, signs: list[Sign]) -> None:
        words = {"ok": gettext("ok"), "warning": gettext("warning"), "error": gettext("PROBLEM")}
        for sign in signs:
            line = f"{words[sign.state]}  {sign.name}: {sign.text}"
            self.stdout.write(line if sign.state == OK else f"{line}\n      -> {sign.remedy}")
