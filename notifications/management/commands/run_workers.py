"""Run Celery workers that share the memory of the loaded code."""

from __future__ import annotations

import signal
from importlib import import_module
from typing import Any

import click
from celery import current_app
from celery.apps.worker import Worker
from celery.bin.base import CLIContext
from celery.bin.worker import worker as worker_command
from celery.utils.nodenames import default_nodename, nodename, nodesplit
from django.core.management.base import CommandError, CommandParser
from django.utils.translation import gettext, gettext_lazy as _

from notifications.management.commands._base import ProcessesCommand
from notifications.processes import run_processes
from notifications.providers import import_providers

LOADED_LATE = (
    "billiard.pool",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.concurrency.thread",
    "celery.events.dispatcher",
    "celery.events.receiver",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "kombu.pidbox",
)
"""Modules that Celery imports while a worker starts."""


class NumberedWorker(Worker):
    """A worker that the parent starts again if it ends, so it does not start itself again at SIGHUP."""

    def install_platform_tweaks(self, worker: Any) -> None:
        """Install Celery's signal handlers, and stop at SIGHUP as at SIGTERM."""
        super().install_platform_tweaks(worker)
        signal.signal(signal.SIGHUP, signal.getsignal(signal.SIGTERM))


class Command(ProcessesCommand):
    """Forks the workers from one parent, which watches them."""

    about = _(
        "Run Celery workers, each in a process of its own. A parent loads the code once, so that the processes share "
        "its memory, and restarts a process that ends. SIGTERM to the parent stops all of them; the sends in flight "
        "are finished first. With one process there is no parent."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Define the options."""
        super().add_arguments(parser)
        parser.add_argument(
            "options",
            nargs="*",
            metavar="-- OPTION",
            help=gettext("Options of `celery worker`. Each process adds its number to the name of its node."),
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the workers until a signal."""
        context = _parse(options["options"])
        count = options["processes"]
        if count > 1:
            _load_code()

        def run_worker(number: int) -> int:
            if count > 1:
                context.params["hostname"] = _numbered(context.params["hostname"], number)
                app: Any = current_app
                app.Worker = app.subclass_with_self(NumberedWorker)
            try:
                with context:
                    worker_command.invoke(context)
            except click.exceptions.Exit as end:
                return end.exit_code
            return 0

        if status := run_processes(count, run_worker):
            raise SystemExit(status)


def _parse(options: list[str]) -> click.Context:
    """Return Celery's own reading of the options, so that a wrong one is reported once, before any process starts."""
    settings = CLIContext(app=current_app, no_color=False, workdir=None, quiet=False)
    try:
        return worker_command.make_context("celery worker", list(options), obj=settings)
    except click.exceptions.Exit as end:  # --help
        raise SystemExit(end.exit_code) from None
    except click.ClickException as error:
        raise CommandError(error.format_message(), returncode=2) from None


def _numbered(name: str | None, number: int) -> str:
    """Return the name of one of several nodes, such as worker-2@host for worker@host."""
    node, host = nodesplit(default_nodename(name or "worker"))
    return str(nodename(f"{node}-{number}", host))


def _load_code() -> None:
    """Import what a worker needs, so that the processes share it. Opens no connection."""
    for module in LOADED_LATE:
        import_module(module)
    current_app.loader.import_default_modules()
    current_app.finalize()
    current_app.connection_for_read().get_transport_cls()
    import_providers()
