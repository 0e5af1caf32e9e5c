"""The list of all migrations on all databases, as text and as JSON."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from django.core.management.base import BaseCommand

from massmigration import api, states, wording
from massmigration.api import Progress
from massmigration.databases.redaction import flatten
from massmigration.management.selection import find_app, get_unreadable


def get_rows(app_labels: list[str], db_aliases: list[str] | None) -> list[Progress]:
    """Return where the migrations stand; without labels those of all apps, without aliases those on all databases."""
    wanted = [find_app(label) for label in app_labels if label not in get_unreadable()]
    rows = api.get_all_progress(db_aliases or None)
    return [row for row in rows if not app_labels or row.app_label in wanted]


def has_unapplied(rows: list[Progress], app_labels: list[str]) -> bool:
    """Return whether something is still to be applied, or cannot be read."""
    unreadable = get_unreadable()
    is_left = any(row.status not in (states.APPLIED, states.ORPHANED) for row in rows)  # an orphan cannot be applied
    return is_left or any(label in unreadable for label in app_labels or unreadable)


def write_text(command: BaseCommand, rows: list[Progress], app_labels: list[str]) -> None:
    """Write the rows app by app, as ``showmigrations`` does; an app that was asked for also if it has none."""
    style = command.style
    names_database = len({row.database for row in rows}) > 1
    by_app: dict[str, list[Progress]] = defaultdict(list)
    for row in rows:
        by_app[row.app_label].append(row)
    unreadable = get_unreadable()
    for label in sorted({*by_app, *app_labels, *(unreadable if not app_labels else ())}):
        command.stdout.write(style.MIGRATE_LABEL(label))
        group = by_app.get(label, [])
        width = max((len(row.name) for row in group), default=0)
        for row in group:
            mark = "X" if row.status == states.APPLIED else " "
            text = _describe(row, style, names_database=names_database)
            command.stdout.write(f" [{mark}] {row.name.ljust(width)}  {text}")
        if label in unreadable:
            command.stdout.write(style.ERROR(f" [ ] {flatten(str(unreadable[label]))}"))
        elif label not in by_app:
            command.stdout.write(style.ERROR(" (no mass migrations)"))


def _describe(row: Progress, style: Any, *, names_database: bool) -> str:
    where = f" on {row.database}" if names_database else ""
    paint = {
        states.APPLIED: style.SUCCESS,
        states.FAILED: style.ERROR,
        states.BROKEN: style.ERROR,
        states.NOT_RUN: str,
    }.get(row.status, style.WARNING)
    run = wording.Run.of(row)
    parts = [f"{paint(states.LABELS[row.status])}{where}{f' {wording.WITHOUT_RUNNING}' if row.faked else ''}"]
    parts += [run.trouble, run.progress]
    if row.status == states.APPLIED and row.finished_at is not None:
        parts.append(wording.format_moment(row.finished_at))
    line = ", ".join(part for part in parts if part)
    trouble = row.error or row.warning
    if row.status == states.ORPHANED and not trouble:
        reset = wording.make_command("massmigration reset", row.key, row.database)
        trouble = f"{wording.FILE_GONE} To reset it: {reset}"
    return f"{line}: {flatten(trouble)}" if trouble else line
