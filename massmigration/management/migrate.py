"""``massmigrate`` and ``massmigration run``: everything that is asked for, forward, dependencies first."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand

from massmigration import api, wording
from massmigration.databases.redaction import flatten, get_message
from massmigration.exceptions import MassMigrationError
from massmigration.management import exits, plan, report
from massmigration.management.base import add_acting_arguments, add_target_arguments, running
from massmigration.management.plan import Step
from massmigration.management.runner import Runner
from massmigration.management.selection import ask, find_key, get_ancestors, get_unreadable, get_wanted_aliases


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare all options of ``massmigrate``."""
    add_target_arguments(parser)
    parser.add_argument("--plan", action="store_true", help="Show what would be done; change nothing.")
    parser.add_argument("--fake", action="store_true", help="Mark as applied without running anything.")
    add_acting_arguments(parser, works=True, noinput="Do not ask before everything that is pending is run.")
    parser.add_argument(
        "--attempt",
        type=_read_uuid,
        metavar="UUID",
        help="Work at this attempt only and change nothing if it is over; worker processes are started with it.",
    )


def migrate(command: BaseCommand, options: dict[str, Any]) -> int:
    """Do what ``massmigrate`` was asked for and return the exit code."""
    app_label, key = find_key(options["app_label"], options["name"])
    aliases = get_wanted_aliases(options, key)
    if options["attempt"] is not None:
        return _work_at_attempt(command, key, aliases, options)
    steps = plan.make_plan(app_label, key, aliases)
    open_steps = [step for step in steps if step.action != plan.NOTHING]
    if options["fake"]:
        open_steps = [replace(step, action="fake") for step in open_steps]
    unreadable = get_unreadable().values() if app_label is None else ()
    for error in unreadable:
        command.stderr.write(command.style.ERROR(flatten(str(error))))
    code = exits.FAILED if unreadable else exits.APPLIED
    if not open_steps:
        if options["verbosity"]:
            command.stdout.write(_describe_nothing(steps, app_label, key, aliases))
        return code
    if options["plan"] or app_label is None:
        _show_plan(command, open_steps)
        if options["plan"]:
            return code
    if app_label is None and any(step.action != plan.LEAVE for step in open_steps):
        ask(command, options, "Continue?", "Running all that is pending")
    if options["fake"]:
        return _fake(command, open_steps, options)
    with running(command, options) as runner:
        done = _Walk(runner, is_named=key is not None).go(open_steps)
        return done if runner.interrupts.should_stop() else exits.combine([code, done])


class _Walk:
    """Goes through the steps; one that cannot be done blocks only what depends on it.

    Args:
        runner: Runs one migration.
        is_named: Whether a migration was asked for by name: then a step that cannot be launched ends the command.
    """

    def __init__(self, runner: Runner, *, is_named: bool) -> None:
        self._runner = runner
        self._is_named = is_named
        self._unapplied: set[tuple[str, str]] = set()

    def go(self, steps: Iterable[Step]) -> int:
        """Take each step, dependencies first, and return the exit code for all."""
        codes = []
        for step in steps:
            try:
                code = self._take(step)
            except MassMigrationError as error:
                if self._is_named:
                    raise
                code = exits.of_error(error)
                self._runner.say(self._runner.style.ERROR(flatten(get_message(error))))
            if self._runner.interrupts.should_stop():
                return code
            codes.append(code)
            if code != exits.APPLIED:
                self._unapplied.add((step.key, step.db_alias))
        return exits.combine(codes)

    def _take(self, step: Step) -> int:
        name = wording.name_target(step.key, step.db_alias)
        # A plan gets old while other migrations run, and until a person has answered.
        progress = api.get_progress(step.key, step.db_alias)
        action = plan.choose_action(progress, is_named=self._is_named)
        if action == plan.LEAVE:
            error = f": {flatten(progress.error)}" if progress.error else ""
            self._runner.say(*report.describe_stop(progress, self._runner.style, f", left alone{error}"))
            return exits.of_status(progress.status)
        if action == plan.NOTHING:
            return self._runner.tell_end(step.key, step.db_alias)
        ancestors = reversed(get_ancestors(step.key))
        blocker = next((key for key in ancestors if (key, step.db_alias) in self._unapplied), None)
        if blocker is not None:
            self._runner.say(f"{name}  {self._runner.style.WARNING('blocked')}: {blocker} has to be applied first")
            return exits.STOPPED
        code = self._runner.run(step.key, step.db_alias, action)
        if code == exits.APPLIED and not api.migration_is_applied(step.key, step.db_alias):
            self._unapplied.add((step.key, step.db_alias))  # started, but not waited for
        return code


def _work_at_attempt(command: BaseCommand, key: str | None, aliases: list[str], options: dict[str, Any]) -> int:
    if key is None or len(aliases) != 1:
        raise exits.refuse("--attempt belongs to one migration on one database: give APP, NAME and --database.")
    with running(command, options) as runner:
        return runner.work_at_attempt(key, aliases[0], options["attempt"])


def _fake(command: BaseCommand, steps: list[Step], options: dict[str, Any]) -> int:
    for step in steps:
        api.fake_migration(step.key, step.db_alias, actor=options["actor"], origin="command")
        command.stdout.write("\n".join(report.describe_end(api.get_progress(step.key, step.db_alias), command.style)))
    return exits.APPLIED


def _show_plan(command: BaseCommand, steps: list[Step]) -> None:
    for alias in dict.fromkeys(step.db_alias for step in steps):
        command.stdout.write(command.style.MIGRATE_HEADING(f"Pending on database '{alias}':"))
        for step in steps:
            if step.db_alias == alias:
                command.stdout.write(plan.describe(step, command.style))


def _describe_nothing(steps: list[Step], app_label: str | None, key: str | None, aliases: list[str]) -> str:
    where = ", ".join(f"'{alias}'" for alias in aliases)
    if key is not None:
        return f"Nothing to do: {key} is applied on database {where}."
    of_app = f" of {app_label}" if app_label is not None else ""
    if steps:
        return f"Nothing to do: every mass migration{of_app} is applied on database {where}."
    return f"Nothing to do: there is no mass migration{of_app} for database {where}."


def _read_uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a UUID") from error
