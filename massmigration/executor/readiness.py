"""Whether a migration may start: its dependencies are applied, and the engine can work it."""

from __future__ import annotations

from django.db import connections
from django.db.migrations.recorder import MigrationRecorder

from massmigration import recorder, states
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.importer import get_dependencies
from massmigration.engine.attributes import check_attributes
from massmigration.engine.kinds import get_kind
from massmigration.exceptions import DependencyNotApplied


def check_declarations(migration: BaseMigration) -> None:
    """Raise ConfigurationError or InvalidDefinition if an attribute or a method cannot work; asks no database."""
    check_attributes(migration)
    get_kind(migration).check_methods()


def check_definition(migration: BaseMigration, db_alias: str) -> None:
    """Raise InvalidDefinition or ConfigurationError if the engine cannot work the migration; reads a key at most."""
    check_declarations(migration)
    get_kind(migration).check(db_alias)


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
