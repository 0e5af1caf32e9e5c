"""The objects that failed, on the command line: listed with their errors, and accepted with a reason."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any, Final

from django.core.management.base import BaseCommand

from massmigration import api, states, wording, worker
from massmigration.databases.redaction import flatten
from massmigration.management import exits, plan, report
from massmigration.management.base import (
    add_acting_arguments,
    add_listing_arguments,
    add_target_arguments,
    running,
)
from massmigration.management.display import format_json
from massmigration.management.selection import confirm, find_key, get_one, get_recorded_keys, get_wanted_aliases
from massmigration.models import MigrationFailure

ID_LENGTH: Final = 12
"""How much of a failure's key is shown; ``accept --failure`` takes the beginning of one."""


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``failures``."""
    add_target_arguments(parser)
    parser.add_argument("--all", action="store_true", help="Also those that were retried or accepted.")
    add_listing_arguments(parser, "first")
    parser.add_argument("--traceback", action="store_true", dest="tracebacks", help="The whole traceback of each.")


def add_accept_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``accept``."""
    add_target_arguments(parser)
    parser.add_argument("--reason", metavar="TEXT", default="", help="Why these objects are skipped; required.")
    parser.add_argument(
        "--failure",
        metavar="ID",
        action="append",
        help="Only this failure, by its key or how that begins; may be given more than once. Default: all that are "
        "open.",
    )
    add_acting_arguments(parser, works=True, noinput="Do not ask.")


def show_failures(command: BaseCommand, options: dict[str, Any]) -> int:
    """Write the failures of the current attempts, oldest first, and return the exit code."""
    aliases = get_wanted_aliases(options)
    app_label, key = find_key(options["app_label"], options["name"], db_aliases=aliases)
    status = None if options["all"] else MigrationFailure.OPEN
    targets = [
        (each, alias)
        for alias in aliases
        for each in ([key] if key is not None else get_recorded_keys(alias))
        if app_label is None or each.startswith(f"{app_label}:")
    ]
    with_tracebacks = options["tracebacks"]
    found = _read(targets, status, options["limit"], with_tracebacks=with_tracebacks)
    if options["format"] == "json":
        _write_json(command, found, with_traceback=with_tracebacks)
        return exits.APPLIED
    count = 0
    for failure, alias in found:
        _write(command, failure, alias, with_traceback=with_tracebacks)
        count += 1
    total = count
    if count == options["limit"]:
        counts = [api.count_failures(each, alias) for each, alias in targets]
        total = sum(each.total if options["all"] else each.open for each in counts)
    if not count:
        command.stdout.write("No failures." if options["all"] else "No open failures.")
    if total > count:
        command.stdout.write(f"and {total - count:,} more; --limit={total} shows all")
    return exits.APPLIED


def _read(
    targets: list[tuple[str, str]], status: str | None, limit: int, *, with_tracebacks: bool
) -> Iterator[tuple[MigrationFailure, str]]:
    """Go through the first failures, with few of them in memory."""
    for key, alias in targets:
        found = api.iterate_failures(key, alias, status=status, limit=limit, with_tracebacks=with_tracebacks)
        for failure in found if limit else ():
            limit -= 1
            yield failure, alias


def _write_json(command: BaseCommand, found: Iterable[tuple[MigrationFailure, str]], *, with_traceback: bool) -> None:
    """Write a JSON list row by row."""
    begin = "["
    for failure, alias in found:
        row = format_json([_as_row(failure, alias, with_traceback=with_traceback)])
        command.stdout.write(begin + row[1:-2], ending="")
        begin = ","
    command.stdout.write("[]" if begin == "[" else "\n]")


def accept(command: BaseCommand, options: dict[str, Any]) -> int:
    """Accept failures after a yes, stay with a run that continues, and return the exit code."""
    key, aliases = get_one(options, "accept")
    if not options["reason"].strip():
        raise exits.refuse(
            "massmigration accept needs a reason, which the events keep: add --reason with a few words on why these "
            "objects are skipped."
        )
    return exits.combine([_accept(command, options, key, alias) for alias in aliases])


def _accept(command: BaseCommand, options: dict[str, Any], key: str, db_alias: str) -> int:
    until = None
    count = len(options["failure"] or ())
    if not count:  # what fails while a person thinks about the question is not meant
        until = api.get_last_failed_at(key, db_alias)
        count = api.count_failures(key, db_alias).acceptable
    if count:
        target = f"{wording.count(count, 'failures')} of {wording.name_target(key, db_alias)}"
        confirm(command, options, states.ACTIONS["accept"], target)
    migration = api.get_migration(key)
    works_here = options["wait"] and not worker.works_elsewhere(migration)
    done = api.accept_failures(
        key,
        db_alias,
        reason=options["reason"],
        failures=options["failure"] or None,
        until=until,
        actor=options["actor"],
        origin="command",
        enqueue=not works_here,
    )
    accepted = wording.describe_accepted(done.accepted_count, done.open_count, goes_on=done.goes_on)
    command.stdout.write(f"{wording.name_target(key, db_alias)}  {accepted}")
    if not done.goes_on:
        return exits.APPLIED
    if not options["wait"]:
        command.stdout.write("\n".join(report.describe_launch(api.get_progress(key, db_alias), command.style)))
        return exits.APPLIED
    with running(command, options) as runner:
        return runner.run(key, db_alias, plan.JOIN)


def _as_row(failure: MigrationFailure, db_alias: str, *, with_traceback: bool) -> dict[str, Any]:
    row = {
        "id": failure.pk,
        "key": failure.key,
        "database": db_alias,
        "attempt_uuid": str(failure.attempt_uuid),
        "status": failure.status,
        "object_key": failure.object_key,
        "object_repr": failure.object_repr,
        "error_class": failure.error_class,
        "message": failure.message,
        "failed_at": failure.failed_at.isoformat(),
    }
    return {**row, "traceback": failure.traceback} if with_traceback else row


def _write(command: BaseCommand, failure: MigrationFailure, db_alias: str, *, with_traceback: bool) -> None:
    at = wording.format_moment(failure.failed_at, is_dated=True)
    what = "the whole operation"
    if failure.object_key is not None:
        what = f"object {failure.object_key}{f' ({failure.object_repr})' if failure.object_repr else ''}"
    name = wording.name_target(failure.key, db_alias)
    line = f"{failure.pk[:ID_LENGTH]}  {at}  {name}  {failure.status}  {what}"
    command.stdout.write(flatten(line))
    if with_traceback and failure.traceback:
        for part in failure.traceback.rstrip().splitlines():
            command.stdout.write(f"    {flatten(part)}")
        return
    command.stdout.write(command.style.ERROR(f"    {report.describe_failure(failure)}"))
