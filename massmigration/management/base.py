"""What the commands have in common: errors as one sentence, exit codes, and the options for running."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError

from massmigration.databases.redaction import describe, flatten, get_message
from massmigration.exceptions import MassMigrationError
from massmigration.management import exits
from massmigration.management.display import get_display
from massmigration.management.interrupts import Interrupts
from massmigration.management.runner import Runner


class MassMigrationCommand(BaseCommand):
    """Base class of our commands; a broken migration file affects only itself."""

    requires_system_checks = [Tags.models]

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command, and turn our errors into one sentence and an exit code."""
        try:
            with _escaping(options):
                return super().execute(*args, **options)
        except MassMigrationError as error:
            raise CommandError(flatten(get_message(error)), returncode=exits.of_error(error)) from error
        except DatabaseError as error:  # its traceback would show values of rows; --traceback does
            raise CommandError(f"The database failed: {flatten(describe(error))}") from error
        except exits.Leave:
            raise
        except SystemExit as error:  # whatever its code: 0 would report success
            raise exits.break_off(
                f"The command was broken off by {describe(error)}, raised in a migration's code or by a signal handler "
                "of the site. Look for sys.exit() there."
            ) from error
        except KeyboardInterrupt:
            self.stderr.write("")
            raise exits.Leave(exits.INTERRUPTED) from None

    def leave(self, code: int) -> None:
        """End the command with an exit code; 0 returns."""
        if code:
            raise exits.Leave(code)


@contextmanager
def _escaping(options: dict[str, Any]) -> Iterator[None]:
    """Escape characters that the output's encoding cannot write, instead of failing."""
    outputs = [options.get("stdout") or sys.stdout, options.get("stderr") or sys.stderr]
    before = [(output, output.errors) for output in outputs if isinstance(output, io.TextIOWrapper)]
    for output, _ in before:
        with suppress(OSError, ValueError):
            output.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for output, errors in before:
            with suppress(OSError, ValueError):
                output.reconfigure(errors=errors)


def add_actor_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--actor``."""
    parser.add_argument("--actor", metavar="NAME", help="Who does it, for the audit trail. Default: the system's user.")


def add_noinput_argument(parser: argparse.ArgumentParser, text: str) -> None:
    """Declare ``--noinput``."""
    parser.add_argument("--noinput", "--no-input", action="store_false", dest="interactive", help=text)


def add_working_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of commands that work in the foreground."""
    parser.add_argument(
        "--workers",
        type=_read_count,
        default=1,
        metavar="N",
        help="Work in N processes of this machine (local backend). Default: in this one.",
    )
    parser.add_argument(
        "--no-wait", action="store_false", dest="wait", help="Only start it; the work continues elsewhere."
    )


def check_working_options(options: dict[str, Any]) -> None:
    """Refuse options that exclude each other."""
    if options["workers"] < 1:
        raise exits.refuse("--workers has to be at least 1.")
    if options["workers"] > 1 and not options["wait"]:
        raise exits.refuse("--workers and --no-wait exclude each other: leave one of them out.")


@contextmanager
def running(command: BaseCommand, options: dict[str, Any]) -> Iterator[tuple[Runner, Interrupts]]:
    """Handle signals and yield what runs migrations for a command.

    Args:
        command: The command.
        options: Its options.
    """
    is_worker = bool(options.get("attempt"))
    display = get_display(command.stdout, verbosity=options["verbosity"], is_worker=is_worker)
    with Interrupts(ignores_sigint=is_worker) as interrupts, _quiet_log(options["verbosity"], is_worker=is_worker):
        runner = Runner(
            display,
            interrupts,
            command.style,
            actor=options.get("actor"),
            workers=options.get("workers", 1),
            waits=options.get("wait", True),
        )
        try:
            yield runner, interrupts
        finally:
            display.end()


@contextmanager
def _quiet_log(verbosity: int, *, is_worker: bool) -> Iterator[None]:
    """Keep the log off the terminal unless the site has a handler for it; the command itself says what matters."""
    logger = logging.getLogger("massmigration")
    if is_worker or verbosity > 1 or logger.hasHandlers():
        yield
        return
    handler = logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _read_count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
