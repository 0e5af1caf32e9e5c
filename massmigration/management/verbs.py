"""The verbs of ``massmigration``, as one table: what each takes and what it does."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from django.core.management.base import BaseCommand, DjangoHelpFormatter

from massmigration import api, states
from massmigration.management import events, exits, failures, migrate, report
from massmigration.management.base import add_acting_arguments, add_target_arguments, running
from massmigration.management.selection import confirm, find_key, get_one, get_wanted_aliases
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


def _act(action: Action) -> Handle:
    """Return what does an action, and stays until the end if it makes a migration run."""

    def handle(command: BaseCommand, options: Options) -> int:
        key, aliases = get_one(options, action.verb)
        runs = action.target in states.ACTIVE
        if runs:
            api.get_migration(key)
        databases = " and ".join(f"'{alias}'" for alias in aliases)
        confirm(command, options, action, f"{key} on database {databases}")
        if runs:
            return _run_all(command, options, [(key, alias) for alias in aliases], action.name)
        for alias in aliases:
            api.ACTIONS[action.name](key, alias, actor=options["actor"], origin="command")
            command.stdout.write("\n".join(report.describe_done(action, key, alias)))
        return exits.APPLIED

    return handle


def _run_all(command: BaseCommand, options: Options, targets: list[tuple[str, str]], action: str) -> int:
    codes = []
    with running(command, options) as runner:
        for key, alias in targets:
            code = runner.run(key, alias, action)
            if runner.interrupts.should_stop():
                return code
            codes.append(code)
    return exits.combine(codes)


def _recover(command: BaseCommand, options: Options) -> int:
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
    with running(command, options) as runner:
        for alias in aliases:
            api.get_progress(key, alias)
            codes.append(runner.watch(key, alias))
            if runner.interrupts.should_stop():
                return codes[-1]
    return exits.combine(codes)


def _do(
    name: str,
    handle: Handle | None = None,
    *,
    add_arguments: AddArguments | None = None,
    asks: bool = False,
    aliases: tuple[str, ...] = (),
    more: str = "",
) -> Verb:
    """Return the verb of a person's action; without a handler, the action itself says what is done."""
    action = states.ACTIONS[name]
    works = action.target in states.ACTIVE or handle is not None

    def add_usual_arguments(parser: argparse.ArgumentParser) -> None:
        add_target_arguments(parser)
        add_acting_arguments(parser, works=works, noinput="Do not ask." if asks else "")

    return Verb(action.verb, action.why + more, add_arguments or add_usual_arguments, handle or _act(action), aliases)


VERBS: Final = {
    verb.name: verb
    for verb in (
        Verb(
            states.ACTIONS["start"].verb,
            "Apply a migration and what it depends on; the same as massmigrate.",
            migrate.add_arguments,
            migrate.migrate,
        ),
        _do("pause"),
        _do("resume"),
        _do("cancel"),
        _do("retry"),
        _do("restart", asks=True),
        Verb(
            "failures",
            "List the objects that failed, with their errors.",
            failures.add_list_arguments,
            failures.show_failures,
        ),
        _do("accept", failures.accept, add_arguments=failures.add_accept_arguments),
        _do("fake"),
        _do("reset", asks=True, aliases=("delete",)),
        _do("recover", _recover, more=" Without a name: all that is stalled."),
        Verb("watch", "Show the progress until the end; change nothing.", add_target_arguments, _watch),
        Verb("events", "Show who did what, and when.", events.add_arguments, events.show_events),
    )
}
