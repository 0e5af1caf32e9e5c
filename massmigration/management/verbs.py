"""The verbs of ``massmigration``, as one table: what each takes and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from django.core.management.base import BaseCommand, DjangoHelpFormatter

from massmigration import api, states
from massmigration.management import events, exits, failures, migrate, report
from massmigration.management.base import (
    add_actor_argument,
    add_noinput_argument,
    add_working_arguments,
    check_working_options,
    running,
)
from massmigration.management.selection import (
    add_database_arguments,
    add_name_arguments,
    confirm,
    find_key,
    get_one,
    get_wanted_aliases,
)
from massmigration.states import Action

Options = dict[str, Any]
AddArguments = Callable[[argparse.ArgumentParser], None]
Handle = Callable[[BaseCommand, Options], int]


class Verb(NamedTuple):
    """One verb.

    Attributes:
        name: What is typed.
        help: What it does.
        add_arguments: Declares its arguments.
        handle: Does it and returns the exit code.
        aliases: Other names.
    """

    name: str
    help: str
    add_arguments: AddArguments
    handle: Handle
    aliases: tuple[str, ...] = ()


def add_base_arguments(command: BaseCommand, parser: argparse.ArgumentParser) -> None:
    """Accept Django's own options after the verb, too."""
    parser.formatter_class = DjangoHelpFormatter
    hidden: Options = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    parser.add_argument("--settings", **hidden)
    parser.add_argument("--pythonpath", **hidden)
    parser.add_argument("-v", "--verbosity", type=int, choices=[0, 1, 2, 3], **hidden)
    for option in ("--traceback", "--no-color", "--force-color", "--skip-checks"):
        parser.add_argument(option, action="store_true", **hidden)


def _add_target(parser: argparse.ArgumentParser) -> None:
    add_name_arguments(parser)
    add_database_arguments(parser)


def _add_target_and_actor(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    add_actor_argument(parser)


def _add_working(parser: argparse.ArgumentParser) -> None:
    _add_target_and_actor(parser)
    add_working_arguments(parser)


def _add_confirmed(parser: argparse.ArgumentParser) -> None:
    _add_target_and_actor(parser)
    add_noinput_argument(parser, "Do not ask.")


def _add_confirmed_working(parser: argparse.ArgumentParser) -> None:
    _add_working(parser)
    add_noinput_argument(parser, "Do not ask.")


def _add_events(parser: argparse.ArgumentParser) -> None:
    _add_target(parser)
    events.add_arguments(parser)


def _change(action: Action) -> Handle:
    """Return what does an action that is over at once, and says what came of it."""

    def handle(command: BaseCommand, options: Options) -> int:
        key, aliases = get_one(options, action.verb)
        if "interactive" in options and not confirm(command, options, action, f"{key} on {_join(aliases)}"):
            return exits.STOPPED
        for alias in aliases:
            api.ACTIONS[action.name](key, alias, actor=options["actor"], origin="command")
            for line in report.describe_done(action, key, alias):
                command.stdout.write(line)
        return exits.APPLIED

    return handle


def _run(action: Action) -> Handle:
    """Return what does an action that makes a migration run, and stays until its end."""

    def handle(command: BaseCommand, options: Options) -> int:
        check_working_options(options)
        key, aliases = get_one(options, action.verb)
        api.get_migration(key)
        if "interactive" in options and not confirm(command, options, action, f"{key} on {_join(aliases)}"):
            return exits.STOPPED
        return _run_all(command, options, [(key, alias) for alias in aliases], action.name)

    return handle


def _run_all(command: BaseCommand, options: Options, targets: list[tuple[str, str]], action: str) -> int:
    codes = []
    with running(command, options) as (runner, interrupts):
        for key, alias in targets:
            code = runner.run(key, alias, action)
            if interrupts.should_stop():
                return code
            codes.append(code)
    return exits.combine(codes)


def _recover(command: BaseCommand, options: Options) -> int:
    check_working_options(options)
    app_label, key = find_key(options["app_label"], options["name"])
    aliases = get_wanted_aliases(options, key)
    if key is not None:
        rows = [api.get_progress(key, alias) for alias in aliases]
        idle = [row for row in rows if row.status not in states.ACTIVE]
        if idle:  # the refusal says what to do instead
            api.recover_migration(key, idle[0].database, actor=options["actor"], origin="command")
    else:
        rows = [row for row in api.get_all_progress(aliases) if app_label in (None, row.app_label)]
    stalled = [(row.key, row.database) for row in rows if row.stalled]
    if not stalled:
        command.stdout.write("Nothing to recover.")
        return exits.APPLIED
    return _run_all(command, options, stalled, "recover")


def _watch(command: BaseCommand, options: Options) -> int:
    key, aliases = get_one(options, "watch")
    codes = []
    with running(command, options) as (runner, interrupts):
        for alias in aliases:
            api.get_progress(key, alias)
            codes.append(runner.watch(key, alias))
            if interrupts.should_stop():
                return codes[-1]
    return exits.combine(codes)


def _join(aliases: list[str]) -> str:
    return "database " + " and ".join(f"'{alias}'" for alias in aliases)


def _do(
    name: str,
    add_arguments: AddArguments,
    handle: Handle | None = None,
    *,
    aliases: tuple[str, ...] = (),
    more: str = "",
) -> Verb:
    """Return the verb of a person's action; without a handler, the action itself says what is done."""
    action = states.ACTIONS[name]
    runs = action.target in states.ACTIVE
    return Verb(action.verb, action.why + more, add_arguments, handle or (_run if runs else _change)(action), aliases)


_ALL: Final = (
    Verb(
        states.ACTIONS["start"].verb,
        "Apply a migration and what it depends on; the same as massmigrate.",
        migrate.add_arguments,
        migrate.migrate,
    ),
    _do("pause", _add_target_and_actor),
    _do("resume", _add_working),
    _do("cancel", _add_target_and_actor),
    _do("retry", _add_working),
    _do("restart", _add_confirmed_working),
    Verb(
        "failures",
        "List the objects that failed, with their errors.",
        failures.add_list_arguments,
        failures.show_failures,
    ),
    _do("accept", failures.add_accept_arguments, failures.accept),
    _do("fake", _add_target_and_actor),
    _do("reset", _add_confirmed, aliases=("delete",)),
    _do("recover", _add_working, _recover, more=" Without a name: all that is stalled."),
    Verb("watch", "Show the progress until the end; change nothing.", _add_target, _watch),
    Verb("events", "Show who did what, and when.", _add_events, events.show_events),
)

VERBS: Final = {verb.name: verb for verb in _ALL}
