"""What the commands have in common: errors as one sentence, exit codes, and the options for running."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS
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
    escapes = True
    """Whether characters that the output cannot show are written as escapes; a file that is shown must not change."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run the command, and turn our errors into one sentence and an exit code."""
        try:
            _check_options(options)
            with _escaping(options) if self.escapes else nullcontext():
                return super().execute(*args, **options)
        except MassMigrationError as error:
            raise CommandError(flatten(get_message(error)), returncode=exits.of_error(error)) from error
        except DatabaseError as error:  # its traceback would show values of rows; --traceback does
            raise CommandError(f"The database failed: {flatten(describe(error))}") from error
        except exits.Leave:
            raise
        except SystemExit as error:  # whatever its code: 0 would report success
            raise CommandError(
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


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare APP, NAME and the databases."""
    parser.add_argument(
        "app_label", metavar="APP", nargs="?", help="Label of an app, or a whole key such as places:0002_slugs."
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="Name of a migration, or how only its name begins.")
    parser.add_argument(
        "--database",
        metavar="ALIAS",
        action="append",
        help=f"The database; may be given more than once. Default: {DEFAULT_DB_ALIAS}.",
    )
    parser.add_argument("--all-databases", action="store_true", help="Every database that the migration may run on.")


def add_acting_arguments(parser: argparse.ArgumentParser, *, works: bool = False, noinput: str = "") -> None:
    """Declare the options of commands that change something.

    Args:
        parser: The parser.
        works: Whether the command works in the foreground.
        noinput: What ``--noinput`` does; empty if nothing is asked.
    """
    parser.add_argument("--actor", metavar="NAME", help="Who does it, for the audit trail. Default: the system's user.")
    if works:
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
    if noinput:
        parser.add_argument("--noinput", "--no-input", action="store_false", dest="interactive", help=noinput)


def add_listing_arguments(parser: argparse.ArgumentParser, which: str) -> None:
    """Declare ``--limit``, with ``which`` are listed, and ``--format``."""
    parser.add_argument("--limit", type=int, default=50, metavar="N", help=f"The {which} N. Default: 50.")
    parser.add_argument("--format", choices=["text", "json"], default="text", help="Default: text.")


def _check_options(options: dict[str, Any]) -> None:
    """Refuse numbers that make no sense, and options that exclude each other."""
    for name in ("workers", "limit"):
        if options.get(name, 1) < 1:
            raise exits.refuse(f"--{name} has to be at least 1.")
    if options.get("workers", 1) > 1 and not options["wait"]:
        raise exits.refuse("--workers and --no-wait exclude each other: leave one of them out.")


@contextmanager
def running(command: BaseCommand, options: dict[str, Any]) -> Iterator[Runner]:
    """Handle signals and yield what runs migrations for a command."""
    is_worker, verbosity = bool(options.get("attempt")), options["verbosity"]
    display = get_display(command.stdout, verbosity=verbosity, is_worker=is_worker)
    with Interrupts(ignores_sigint=is_worker) as interrupts, _quiet_log(verbosity, is_worker=is_worker):
        try:
            yield Runner(
                display=display,
                interrupts=interrupts,
                style=command.style,
                actor=options.get("actor"),
                workers=options.get("workers", 1),
                waits=options.get("wait", True),
            )
        finally:
            display.end()


@contextmanager
def _quiet_log(verbosity: int, *, is_worker: bool) -> Iterator[None]:
    """Keep the log off the terminal unless the site has a handler for it; the command itself says what matters."""
    logger, handler = logging.getLogger("massmigration"), logging.NullHandler()
    if not (is_worker or verbosity > 1 or logger.hasHandlers()):
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _read_count(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)
