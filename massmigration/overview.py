"""Answers questions about migrations: which there are, where they stand, what may be done with them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS

from massmigration import recorder, states
from massmigration.databases import check_alias, get_aliases, get_database_aliases
from massmigration.definitions.base import BaseMigration, as_key
from massmigration.engine import progress
from massmigration.engine.progress import Progress
from massmigration.exceptions import BrokenMigration, LoadError, MigrationNotFound
from massmigration.loader import get_loader
from massmigration.models import MigrationEvent, MigrationFailure, MigrationRecord

if TYPE_CHECKING:
    pass

Key = str | tuple[str, str] | BaseMigration


def get_all_migrations() -> list[BaseMigration]:
    """Return every migration whose file works, dependencies first; the instances are the caller's own."""
    loader = get_loader()
    ordered = [key for key in loader.graph.order() if key in loader.migrations]
    found = []
    for key in ordered:
        with suppress(BrokenMigration):
            found.append(loader.make(key))
    return found


def get_migration(key: Key) -> BaseMigration:
    """Return a migration, an instance of the caller's own.

    Raises:
        MigrationNotFound: There is no such file.
        LoadError: Its file, or one that it depends on, does not work.
    """
    return get_loader().get(as_text(key))


def get_record(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> MigrationRecord | None:
    """Return the record of a migration, or None if it was not run on this database."""
    check_alias(db_alias)
    return recorder.get_record(as_text(key), db_alias)


def get_progress(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> Progress:
    """Return where a migration stands; also one whose file is broken or gone.

    Raises:
        MigrationNotFound: There is neither a file nor a record.
    """
    check_alias(db_alias)
    text, loader = as_text(key), get_loader()
    try:
        migration = loader.get(text)
    except MigrationNotFound:
        found = progress.get_progress(text, db_alias, None, missing_status=states.ORPHANED)
        if found.record_status == states.NOT_RUN:
            raise
        return found
    except LoadError as error:
        return progress.get_progress(text, db_alias, None, missing_status=states.BROKEN, error=str(error))
    return progress.get_progress(text, db_alias, migration, source_hash=loader.source_hash(text))


def get_all_progress(db_aliases: Iterable[str] | None = None) -> list[Progress]:
    """Return where every migration stands, on every database that it may run on, dependencies first.

    Files that are broken and records without a file come last.

    Args:
        db_aliases: Only these databases; None for all.
    """
    loader = get_loader()
    wanted = get_aliases() if db_aliases is None else list(db_aliases)
    for alias in wanted:
        check_alias(alias)
    with_tables = [alias for alias in wanted if recorder.has_tables(alias)]
    rows = []
    for migration in get_all_migrations():
        for alias in get_database_aliases(migration):
            if alias in with_tables:
                rows.append(get_progress(migration, alias))
            elif alias in wanted:
                rows.append(_get_progress_without_tables(migration, alias))
    good = {migration.key for migration in get_all_migrations()}
    for key in sorted(set(loader.files) - good):
        rows += [get_progress(key, alias) for alias in with_tables]
    for alias in with_tables:
        for key in recorder.get_keys(alias):
            if key not in loader.files:
                rows.append(get_progress(key, alias))
    return rows


def get_events(key: Key | None = None, db_alias: str = DEFAULT_DB_ALIAS, *, limit: int = 50) -> list[MigrationEvent]:
    """Return the newest ``limit`` events of a migration, or of all if ``key`` is None; oldest first."""
    check_alias(db_alias)
    return recorder.get_events(None if key is None else as_text(key), db_alias, limit)


def get_failures(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> list[MigrationFailure]:
    """Return the objects that failed in the record's attempt, oldest first."""
    record = get_record(key, db_alias)
    return recorder.get_failures(record.attempt_uuid if record is not None else None, db_alias)


def get_allowed_actions(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Return what a person may do now: some of start, pause, resume, retry, recover, cancel, restart, fake, reset.

    ``recover`` is among them only while nobody works; a migration without a working file can only be stopped and reset.
    """
    return get_progress(key, db_alias).allowed_actions


def migration_is_applied(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> bool:
    """Return whether a migration is applied on this database, and not merely begun."""
    record = get_record(key, db_alias)
    return record is not None and record.status == states.APPLIED


def _get_progress_without_tables(migration: BaseMigration, db_alias: str) -> Progress:
    return Progress(
        migration.key,
        migration.app_label,
        migration.name,
        db_alias,
        states.NOT_RUN,
        description=migration.description,
        error=f"Database '{db_alias}' has no tables of massmigration. Run: manage.py migrate --database={db_alias}",
    )


def as_text(key: Key) -> str:
    """Return the key as text, ``"app_label:NNNN_name"``."""
    return key.key if isinstance(key, BaseMigration) else as_key(key)
