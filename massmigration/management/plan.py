"""What massmigrate is going to do: which migrations, in which order, and which of them are left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from massmigration import api, states, wording
from massmigration.api import Progress
from massmigration.databases.redaction import flatten
from massmigration.definitions.base import BaseMigration
from massmigration.exceptions import DatabaseNotAllowed
from massmigration.management.selection import find_definition, get_keys_in_order

JOIN, NOTHING, LEAVE = "join", "nothing", "leave"
"""What is done beside the actions of ``states.ACTIONS``."""

COUNT_SECONDS: Final = 0.5
"""A count for the plan that takes longer is replaced by an estimate."""


@dataclass(frozen=True)
class Step:
    """One migration on one database.

    Attributes:
        key: The migration.
        db_alias: The database.
        action: What is to be done: a name in ``states.ACTIONS`` or one of this module's constants.
        progress: Where it stands now.
    """

    key: str
    db_alias: str
    action: str
    progress: Progress


def choose_action(progress: Progress, *, is_named: bool) -> str:
    """Return what massmigrate does with a migration.

    Only one that the person asked for by name is resumed, retried or started again after it failed or was stopped.
    """
    if progress.status in states.ACTIVE:
        return JOIN
    if progress.status == states.APPLIED:
        return NOTHING
    action = states.get_action_towards_end(progress.status)
    return action if action and (is_named or progress.status == states.NOT_RUN) else LEAVE


def make_plan(app_label: str | None, key: str | None, db_aliases: list[str]) -> list[Step]:
    """Return all steps, dependencies first, database after database; also those with nothing to do.

    Raises:
        LoadError: The migration that was named cannot be run.
        DatabaseNotAllowed: The migration that was named does not run on one of the databases.
    """
    if key is not None:
        allowed = api.get_database_aliases(api.get_migration(key))
        for alias in db_aliases:
            if alias not in allowed:
                raise DatabaseNotAllowed(
                    f"{key} does not run on database '{alias}'. It runs on: {', '.join(allowed) or 'none'}.",
                    key=key,
                    db_alias=alias,
                )
    keys = get_keys_in_order(app_label, key)
    steps = []
    for alias in db_aliases:
        for each in keys:
            definition = find_definition(each)
            if definition is not None and alias not in api.get_database_aliases(definition):
                continue
            progress = api.get_progress(each, alias)
            steps.append(Step(each, alias, choose_action(progress, is_named=key is not None), progress))
    return steps


def _describe_rows(migration: BaseMigration, db_alias: str) -> str:
    """Return how many rows a migration would visit, if that can be said quickly."""
    try:
        number = api.count_objects(migration, db_alias, seconds=COUNT_SECONDS)
    except Exception:  # the start says what is wrong with it
        return ""
    return wording.count(number[0], "rows", is_estimate=number[1]) if number and number[0] is not None else ""


def describe(step: Step, style: Any) -> str:
    """Return the line of a step in the plan."""
    migration = find_definition(step.key)
    name = f"  {wording.name_target(step.key, step.db_alias)}"
    if step.action == LEAVE or migration is None:
        status = states.LABELS[step.progress.status]
        detail = f": {flatten(step.progress.error)}" if step.progress.error else ""
        return f"{name}  {style.WARNING(f'{status}, left alone{detail}')}"
    parts = [step.action if step.action != "fake" else f"mark as applied {wording.WITHOUT_RUNNING}"]
    if step.action == "start":
        parts.append(_describe_rows(migration, step.db_alias))
    elif step.action != "fake":
        parts.append(wording.Run.of(step.progress).progress)
    if migration.destructive:
        parts.append(style.WARNING("deletes or overwrites data"))
    if migration.description:
        parts.append(migration.description)
    return f"{name}  {', '.join(filter(None, parts))}"
