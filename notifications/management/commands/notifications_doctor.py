"""Check the settings, PostgreSQL, Redis, the broker and the workers."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext, gettext_lazy as _, ngettext

from notifications.management.commands._base import Command as Base
from notifications.monitoring.diagnostics import OK, run_diagnostics
from notifications.monitoring.diagnostics.check_result import ERROR, CheckResult


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
            results = list(run_diagnostics())
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps([asdict(result) for result in results], ensure_ascii=False, indent=2))
        else:
            self._write(results)
        if wrong := sum(result.state == ERROR for result in results):
            raise CommandError(
                ngettext("%(count)d problem found", "%(count)d problems found", wrong) % {"count": wrong}
            )

    def _write(self, results: list[CheckResult]) -> None:
        labels = {"ok": gettext("ok"), "warning": gettext("warning"), "error": gettext("PROBLEM")}
        for result in results:
            line = f"{labels[result.state]}  {result.name}: {result.text}"
            self.stdout.write(line if result.state == OK else f"{line}\n      -> {result.remedy}")
