"""Whether a migration may start, and what a person should know before: dependencies, definition, backend, rows."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connections
from django.db.migrations.recorder import MigrationRecorder

from massmigration import recorder, states
from massmigration.backends.base import get_backend_path
from massmigration.databases.redaction import describe, get_message
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.importer import get_dependencies
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import DependencyNotApplied, MassMigrationError


@dataclass(frozen=True)
class Preparation:
    """What the confirmation page says about a run.

    Attributes:
        migration: The definition.
        backend: Dotted path of the backend, and the queue if there is one.
        rows: How many rows there are, None if that is not known before the start.
        rows_are_estimated: Whether that number is an estimate.
        rows_error: Why the rows could not be counted.
        missing: Mass migrations and Django migrations that have to be applied before.
    """

    migration: BaseMigration
    backend: str
    rows: int | None = None
    rows_are_estimated: bool = False
    rows_error: str = ""
    missing: tuple[str, ...] = ()


def check_definition(migration: BaseMigration, db_alias: str) -> None:
    """Raise InvalidDefinition or ConfigurationError if the engine cannot work the migration; reads a key at most."""
    kind = get_kind(migration)
    kind.check_declarations()
    kind.check(db_alias)


def check_dependencies(migration: BaseMigration, db_alias: str) -> None:
    """Raise DependencyNotApplied if a mass migration or a Django migration has to be applied before."""
    missing = []
    for dependency in get_dependencies(migration):
        record = recorder.get_record(dependency, db_alias)
        if record is None or record.status != states.APPLIED:
            missing.append(dependency)
    if migration.schema_dependencies:
        applied = set(MigrationRecorder(connections[db_alias]).applied_migrations())
        missing += [f"{app}.{name}" for app, name in migration.schema_dependencies if (app, name) not in applied]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        raise DependencyNotApplied(
            f"{migration.key} needs {', '.join(missing)} to be applied on database '{db_alias}' first. Apply {them}, "
            "then start this one.",
            key=migration.key,
            db_alias=db_alias,
            missing=missing,
        )


def prepare(migration: BaseMigration, db_alias: str) -> Preparation:
    """Return what a person should know before a start; takes about a second at most."""
    missing: tuple[str, ...] = ()
    try:
        check_dependencies(migration, db_alias)
    except DependencyNotApplied as error:
        missing = tuple(error.missing)
    count, rows_error = None, ""
    if not missing:
        try:
            count = get_kind(migration).count_objects(db_alias)
        except Exception as error:  # the queryset is the author's and may raise anything
            is_ours = isinstance(error, MassMigrationError)
            rows_error = get_message(error) if is_ours else describe(error)
    return Preparation(
        migration,
        get_backend_path(migration),
        count.number if count is not None else None,
        count is not None and count.is_estimate,
        rows_error,
        missing,
    )
