"""What massmigrate is going to do: which migrations, in which order, and which of them are left alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from massmigration import api, states, wording
from massmigration.api import Progress
from massmigration.databases.aliases import get_database_aliases
from massmigration.databases.counting import Count
from massmigration.databases.redaction import flatten
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import get_loader
from massmigration.exceptions import DatabaseNotAllowed
from massmigration.management import display as displays

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

    Args:
        progress: Where it stands.
        is_named: Whether the person asked for it by name; only then is resumed, retried or started again what a person
            stopped or what failed.
    """
    if progress.status in states.ACTIVE:
        return JOIN
    if progress.status == states.APPLIED:
        return NOTHING
    action = states.get_action_towards_end(progress.status)
    return action if action and (is_named or progress.status == states.NOT_RUN) else LEAVE


def make_plan(app_label: str | None, key: str | None, db_aliases: list[str]) -> list[Step]:
    """Return all steps, dependencies first, database after database; also those with nothing to do.

    Args:
        app_label: Only migrations of this app, and what they depend on; None for all apps.
        key: Only this migration, and what it depends on.
        db_aliases: The databases.

    Raises:
        LoadError: The migration that was named cannot be run.
        DatabaseNotAllowed: The migration that was named does not run on one of the databases.
    """
    loader = get_loader()
    if key is not None:
        named = loader.get(key)
        for alias in db_aliases:
            if alias not in get_database_aliases(named):
                raise DatabaseNotAllowed(
                    f"{key} does not run on database '{alias}'. It runs on: "
                    f"{', '.join(get_database_aliases(named)) or 'none'}.",
                    key=key,
                    db_alias=alias,
                )
    keys = _get_keys(app_label, key)
    steps = []
    for alias in db_aliases:
        for each in keys:
            problem = loader.find_problem(each)
            if problem is None and alias not in get_database_aliases(loader.migrations[each]):
                continue
            progress = api.get_progress(each, alias)
            steps.append(Step(each, alias, choose_action(progress, is_named=key is not None), progress))
    return steps


def make_fake(steps: list[Step]) -> list[Step]:
    """Return the steps that mark as applied what is not, without running it."""
    return [step if step.action == NOTHING else replace(step, action="fake") for step in steps]


def _get_keys(app_label: str | None, key: str | None) -> list[str]:
    """Return the keys in order; those that cannot be run are among them, so that they are told."""
    loader = get_loader()
    if key is not None:
        return [*loader.graph.ancestors(key), key]
    wanted = set(loader.files)
    if app_label is not None:
        own = loader.app_keys(app_label)
        wanted = {*own, *(ancestor for each in own for ancestor in loader.graph.ancestors(each))}
    ordered = [each for each in loader.graph.order() if each in wanted]
    return ordered + sorted(wanted - set(ordered))


def count(migration: BaseMigration, db_alias: str) -> Count | None:
    """Return how many rows a migration would visit, if that can be said quickly."""
    try:
        return api.count_objects(migration, db_alias, seconds=COUNT_SECONDS)
    except Exception:  # whatever is wrong with it is told by the start
        return None


def describe(step: Step, style: Any) -> str:
    """Return the line of a step in the plan."""
    migration = get_loader().migrations.get(step.key)
    name = f"  {wording.name_target(step.key, step.db_alias)}"
    if step.action == LEAVE or migration is None:
        status = states.LABELS[step.progress.status]
        detail = f": {flatten(step.progress.error)}" if step.progress.error else ""
        return f"{name}  {style.WARNING(f'{status}, left alone{detail}')}"
    parts = [step.action if step.action != "fake" else f"mark as applied {wording.WITHOUT_RUNNING}"]
    if step.action == "start" and (number := count(migration, step.db_alias)) and number.number is not None:
        parts.append(wording.count(number.number, "rows", is_estimate=number.is_estimate))
    elif step.action in (JOIN, "resume", "retry") and (rows := displays.describe(step.progress).progress):
        parts.append(rows)
    if migration.destructive:
        parts.append(style.WARNING("deletes or overwrites data"))
    if migration.description:
        parts.append(migration.description)
    return f"{name}  {', '.join(parts)}"
