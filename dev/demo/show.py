"""What a person sees: the table as it changes, then a verdict for each part."""

from __future__ import annotations

from django.utils import timezone
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dev.demo.scenario import Part, Scenario

COLORS = {"sent": "green", "dead": "red", "failed": "yellow", "sending": "cyan", "skipped": "magenta"}


class Show:
    """A live table on a terminal. Elsewhere, one line per change of a state."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.console = Console(highlight=False)
        self.printed: dict[str, str] = {}
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> Show:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.live:
            self.live.stop()

    def refresh(self) -> None:
        """Show the current states."""
        rows = [(part, *self._columns(part)) for part in self.scenario.parts]
        if self.live:
            table = Table("notification", "record", "state", "attempts", "next attempt", "code", "sends")
            for part, record, state, attempts, due, code in rows:
                color = COLORS.get(state, "white")
                sends = f"{self.scenario.taken(part)} of {self.scenario.arrived(part)}"
                table.add_row(part.name, record, f"[{color}]{state}[/]", attempts, due, code, sends)
            self.live.update(table, refresh=True)
            return
        for part, record, state, attempts, _due, code in rows:
            line = f"{part.name:36} {record:>6} {state:9} attempts {attempts} {code}"
            if self.printed.get(part.name) != line:
                self.printed[part.name] = line
                self.console.print(line, soft_wrap=True)

    def _columns(self, part: Part) -> tuple[str, str, str, str, str]:
        record = part.record
        if record is None:
            return "-", self.scenario.state(part), "-", "-", ""
        due = record.next_attempt_at
        wait = f"in {max(0.0, (due - timezone.now()).total_seconds()):.0f} s" if due else "-"
        attempts = f"{record.attempt_count}/{record.max_attempts}" + (f" round {record.round}" if record.round else "")
        return f"#{record.pk}", record.status, attempts, wait, record.last_error_code

    def verdicts(self) -> bool:
        """Print a line for each part; return whether all are as expected."""
        good = True
        for part in self.scenario.parts:
            state, sends = self.scenario.state(part), self.scenario.taken(part)
            right = (state, sends) == (part.expected, part.sends)
            good &= right
            mark = "ok  " if right else "FAIL"
            self.console.print(
                f"{mark} {part.name:36} expected {part.expected:8} state {state:8} "
                f"expected sends {part.sends} sends {sends}{f'  ({part.note})' if part.note else ''}",
                soft_wrap=True,
                style="green" if right else "bold red",
            )
        return good
