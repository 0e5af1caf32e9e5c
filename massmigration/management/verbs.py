"""The verbs of ``massmigration``, as one table: what each takes and what it does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from django.core.management.base import BaseCommand, DjangoHelpFormatter

from massmigration import api, states, wording
from massmigration.management import exits, failures, history, migrating, plan
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
    ask,
    find_key,
    get_one,
    get_wanted_aliases,
)

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
    """Let Django's own options stand behind the verb, too."""
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
    history.add_arguments(parser)


def _change(verb: str, change: Callable[..., Any], tell: Callable[[BaseCommand, str, str], str]) -> Handle:
    def handle(command: BaseCommand, options: Options) -> int:
        key, aliases = get_one(options, verb)
        for alias in aliases:
            change(key, alias, actor=options["actor"], origin="command")
            command.stdout.write(tell(command, key, alias))
        return exits.APPLIED

    return handle


def _tell_pause(command: BaseCommand, key: str, db_alias: str) -> str:
    go_on = wording.make_command("massmigration resume", key, db_alias)
    return (
        f"{wording.name_target(key, db_alias)}  paused; workers stop after the batch in hand\n  To resume it: {go_on}"
    )


def _tell_cancel(command: BaseCommand, key: str, db_alias: str) -> str:
    return f"{wording.name_target(key, db_alias)}  cancelled; migrated rows are kept"


def _tell_fake(command: BaseCommand, key: str, db_alias: str) -> str:
    return f"{wording.name_target(key, db_alias)}  {command.style.SUCCESS('applied')} without running it"


def _run_foreground(verb: str, action: str) -> Handle:
    def handle(command: BaseCommand, options: Options) -> int:
        check_working_options(options)
        key, aliases = get_one(options, verb)
        return _run_all(command, options, [(key, alias) for alias in aliases], action)

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


def _restart(command: BaseCommand, options: Options) -> int:
    check_working_options(options)
    key, aliases = get_one(options, "restart")
    api.get_migration(key)
    question = f"{key} visits every row again, from the beginning, on {_join(aliases)}. Restart it?"
    if not ask(question, interactive=options["interactive"], stdin=sys.stdin, what=f"Restarting {key}"):
        command.stdout.write("Nothing was changed.")
        return exits.STOPPED
    return _run_all(command, options, [(key, alias) for alias in aliases], plan.RESTART)


def _reset(command: BaseCommand, options: Options) -> int:
    key, aliases = get_one(options, "reset")
    question = f"{key} will count as not run on {_join(aliases)}; migrated rows stay as they are. Reset it?"
    if not ask(question, interactive=options["interactive"], stdin=sys.stdin, what=f"Resetting {key}"):
        command.stdout.write("Nothing was changed.")
        return exits.STOPPED
    for alias in aliases:
        api.reset_migration(key, alias, actor=options["actor"], origin="command")
        command.stdout.write(f"{wording.name_target(key, alias)}  not run; its record is forgotten")
    return exits.APPLIED


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
    return _run_all(command, options, stalled, plan.RECOVER)


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


_ALL: Final = (
    Verb(
        "run",
        "Apply a migration and what it depends on; the same as massmigrate.",
        migrating.add_arguments,
        migrating.migrate,
    ),
    Verb(
        "pause",
        "Stop after the batch in hand.",
        _add_target_and_actor,
        _change("pause", api.pause_migration, _tell_pause),
    ),
    Verb("resume", "Go on after a pause.", _add_working, _run_foreground("resume", plan.RESUME)),
    Verb(
        "cancel",
        "Give a run up; migrated rows are kept.",
        _add_target_and_actor,
        _change("cancel", api.cancel_migration, _tell_cancel),
    ),
    Verb("retry", "Try what failed again, then go on.", _add_working, _run_foreground("retry", plan.RETRY)),
    Verb("restart", "Visit every row again, from the beginning.", _add_confirmed_working, _restart),
    Verb(
        "failures",
        "List the objects that failed, with their errors.",
        failures.add_list_arguments,
        failures.show_failures,
    ),
    Verb(
        "accept",
        "Take objects that failed as they are, for a reason.",
        failures.add_accept_arguments,
        failures.accept,
    ),
    Verb(
        "fake",
        "Mark as applied without running.",
        _add_target_and_actor,
        _change("fake", api.fake_migration, _tell_fake),
    ),
    Verb("reset", "Forget the record, so that it counts as not run.", _add_confirmed, _reset, ("delete",)),
    Verb("recover", "Go on with what a crash left behind; without a name, with all of it.", _add_working, _recover),
    Verb("watch", "Show the progress until the end; change nothing.", _add_target, _watch),
    Verb("events", "Show who did what, and when.", _add_events, history.show_events),
)

VERBS: Final = {verb.name: verb for verb in _ALL}
