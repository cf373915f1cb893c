"""Look at everything delivery rests on."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext, gettext_lazy as _

from notifications.management.commands._base import Command as Base
from notifications.monitoring.diagnostics import OK, examine
from notifications.monitoring.diagnostics.check_result import ERROR, Sign


class Command(Base):
    """Says what is wrong and what to do; changes nothing."""

    about = _(
        "Look at settings, PostgreSQL, migrations, sweeps, workers, keys, Redis and the broker, and say what is wrong "
        "and what to do about it. Changes nothing."
    )
    exit_codes = _(
        "Exit codes: 0 nothing is wrong, though there may be warnings; 1 something is; 2 unreadable arguments."
    )
    requires_system_checks = ()  # they are among what is looked at, and said like the rest

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        parser.add_argument("--json", action="store_true", help=gettext("Say it as JSON, for programs."))

    def handle(self, *args: Any, **options: Any) -> None:
        """Look, say, and fail if something is wrong."""
        try:
            signs = list(examine())
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps([asdict(sign) for sign in signs], ensure_ascii=False, indent=2))
        else:
            self._write(signs)
        if wrong := sum(sign.state == ERROR for sign in signs):
            raise CommandError(gettext("wrong: %(count)d") % {"count": wrong})

    def _write(self, signs: list[Sign]) -> None:
        words = {"ok": gettext("ok"), "warning": gettext("warning"), "error": gettext("WRONG")}
        for sign in signs:
            line = f"{words[sign.state]}  {sign.name}: {sign.text}"
            self.stdout.write(line if sign.state == OK else f"{line}\n      -> {sign.remedy}")
