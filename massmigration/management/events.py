"""The audit trail on the command line: who did what, when and from where."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand

from massmigration import api, wording
from massmigration.databases.redaction import flatten
from massmigration.exceptions import MigrationNotFound
from massmigration.management import exits
from massmigration.management.base import add_listing_arguments, add_target_arguments
from massmigration.management.display import format_json
from massmigration.management.selection import find_key, get_wanted_aliases
from massmigration.models import MigrationEvent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``events``."""
    add_target_arguments(parser)
    add_listing_arguments(parser, "newest")


def show_events(command: BaseCommand, options: dict[str, Any]) -> int:
    """Write the newest events, oldest first, and return the exit code."""
    aliases = get_wanted_aliases(options)
    app_label, key = _find(options, aliases)
    limit = options["limit"]
    found = [(event, alias) for alias in aliases for event in _get_events(key, alias, limit, app_label)]
    found = sorted(found, key=lambda pair: pair[0].at)[-limit:]
    if options["format"] == "json":
        command.stdout.write(format_json([_as_row(event, alias) for event, alias in found]))
    else:
        _write_table(command, found, names_database=len(aliases) > 1)
    return exits.APPLIED


def _find(options: dict[str, Any], aliases: list[str]) -> tuple[str | None, str | None]:
    """Find the migration; one whose file and record are gone still has its events."""
    label, name = options["app_label"], options["name"]
    key = label if label and ":" in label and name is None else f"{label}:{name}" if name else None
    if key and any(_get_events(key, alias, 1) for alias in aliases):
        return key.partition(":")[0], key
    return find_key(label, name)


def _get_events(key: str | None, db_alias: str, limit: int, app_label: str | None = None) -> list[MigrationEvent]:
    with suppress(MigrationNotFound):  # it may have events on another database
        return api.get_events(key, db_alias, limit=limit, app_label=app_label)
    return []


def _as_row(event: MigrationEvent, db_alias: str) -> dict[str, Any]:
    return {
        "at": event.at.isoformat(),
        "key": event.key,
        "database": db_alias,
        "action": event.action,
        "status": event.status or None,
        "actor": event.actor,
        "origin": event.origin,
        "attempt_uuid": str(event.attempt_uuid) if event.attempt_uuid else None,
        "detail": event.detail,
        "parameters": event.parameters,
    }


def _write_table(command: BaseCommand, found: list[tuple[MigrationEvent, str]], *, names_database: bool) -> None:
    if not found:
        command.stdout.write("No events.")
        return
    lines = [
        (
            wording.format_moment(event.at, is_dated=True),
            f"{event.key} ({alias})" if names_database else event.key,
            event.action,
            flatten(f"{event.actor} ({event.origin})"),
            flatten(event.detail),
        )
        for event, alias in found
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)]
        command.stdout.write("  ".join(cells).rstrip())
