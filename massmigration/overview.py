"""Answers questions about migrations: which there are, where they stand, what may be done with them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from massmigration import recorder, states
from massmigration.databases.aliases import check_alias, get_aliases, get_database_aliases
from massmigration.databases.counting import COUNT_SECONDS, Count
from massmigration.definitions.base import BaseMigration
from massmigration.discovery.loader import get_loader
from massmigration.discovery.reference import Reference, parse
from massmigration.engine import progress
from massmigration.engine.kinds import get_kind
from massmigration.engine.progress import Progress
from massmigration.exceptions import BrokenMigration, LoadError, MigrationNotFound, WaitTimedOut
from massmigration.executor.readiness import Preparation, prepare
from massmigration.models import MigrationEvent, MigrationFailure, MigrationRecord
from massmigration.recorder import FailureCounts, FailureFilter
from massmigration.recorder.failures import ACCEPTABLE, find_last_failed_at

Key = Reference


def get_all_migrations() -> list[BaseMigration]:
    """Return every migration whose file works, dependencies first; each call returns new instances."""
    loader = get_loader()
    ordered = [key for key in loader.graph.order() if key in loader.migrations]
    found = []
    for key in ordered:
        with suppress(BrokenMigration):
            found.append(loader.make(key))
    return found


def get_migration(key: Key) -> BaseMigration:
    """Return a migration, a new instance.

    Raises:
        MigrationNotFound: There is no such file.
        LoadError: Its file, or one that it depends on, does not work.
    """
    return get_loader().get(key)


def resolve(key: Key, db_alias: str) -> str:
    """Return the key that is meant, ``"app_label:NNNN_name"``; one without a file needs a record on the database.

    Raises:
        MigrationNotFound: There is neither a file nor a record.
    """
    check_alias(db_alias)
    return get_loader().resolve(key, lambda text: recorder.get_record(text, db_alias) is not None)


def get_definition(key: Key, db_alias: str) -> BaseMigration:
    """Return the migration to be run on a database, a new instance.

    Raises:
        MigrationNotFound: There is neither a file nor a record, or there is a record whose file is gone.
        LoadError: Its file, or one that it depends on, does not work.
    """
    loader = get_loader()
    text = resolve(key, db_alias)
    if text not in loader.files:
        raise MigrationNotFound(
            f"{text} has no file any more, so it cannot be run. Put the file back, or reset the record.",
            key=text,
            db_alias=db_alias,
        )
    return loader.get(text)


def get_record(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> MigrationRecord | None:
    """Return the record of a migration, or None if it was not run on this database.

    Raises:
        MigrationNotFound: There is neither a file nor a record.
    """
    check_alias(db_alias)
    text = parse(key)
    record = recorder.get_record(text, db_alias) if text is not None else None
    if record is None:  # looked for first: a guard in a site's code needs no files then
        get_loader().resolve(key)
    return record


def get_progress(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> Progress:
    """Return where a migration stands; also one whose file is broken or gone.

    Raises:
        MigrationNotFound: There is neither a file nor a record.
    """
    return progress.get_progress(_make_subject(resolve(key, db_alias)), db_alias)


def get_all_progress(db_aliases: Iterable[str] | None = None) -> list[Progress]:
    """Return where every migration stands, on every database that it may run on, dependencies first.

    Files that are broken and records without a file come last.

    Args:
        db_aliases: Only these databases; None for all.
    """
    loader, migrations = get_loader(), get_all_migrations()
    wanted = get_aliases() if db_aliases is None else list(db_aliases)
    for alias in wanted:
        check_alias(alias)
    with_tables = [alias for alias in wanted if recorder.has_tables(alias)]
    good = {migration.key: get_database_aliases(migration) for migration in migrations}
    bad = sorted(set(loader.files) - good.keys())
    rows: dict[str, dict[str, Progress]] = {}
    for alias in with_tables:
        keys = [key for key, aliases in good.items() if alias in aliases] + bad
        keys += [key for key in recorder.get_keys(alias) if key not in loader.files]
        rows[alias] = {row.key: row for row in progress.get_all(list(map(_make_subject, keys)), alias)}
    ordered = []
    for migration in migrations:
        for alias in good[migration.key]:
            if alias in with_tables:
                ordered.append(rows[alias].pop(migration.key))
            elif alias in wanted:
                ordered.append(_get_progress_without_tables(migration, alias))
    ordered += [rows[alias].pop(key) for key in bad for alias in with_tables]
    return ordered + [row for alias in with_tables for row in rows[alias].values()]


def _make_subject(key: str) -> progress.Subject:
    """Return what is known of a migration without its database, whether its file works or not."""
    loader = get_loader()
    try:
        return progress.Subject(key, loader.get(key), source_hash=loader.source_hash(key))
    except MigrationNotFound:
        return progress.Subject(key, None, states.ORPHANED)
    except LoadError as error:
        return progress.Subject(key, None, states.BROKEN, str(error))


def get_events(
    key: Key | None = None, db_alias: str = DEFAULT_DB_ALIAS, *, limit: int = 50, app_label: str | None = None
) -> list[MigrationEvent]:
    """Return the newest ``limit`` events of a migration, or of all if ``key`` is None; oldest first.

    Args:
        key: The migration.
        db_alias: The database.
        limit: At most this number.
        app_label: Without a key, only events of this app's migrations.

    Raises:
        MigrationNotFound: There is neither a file, nor a record, nor an event.
    """
    check_alias(db_alias)
    if key is None:
        return recorder.get_events(None, db_alias, limit, app_label)
    events = recorder.get_events(parse(key) or "", db_alias, limit)
    if not events:  # those of a record that was reset are kept, also when its file is gone
        resolve(key, db_alias)
    return events


def get_failures(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    status: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    with_tracebacks: bool = True,
) -> list[MigrationFailure]:
    """Return objects that failed in the record's attempt, oldest first.

    Args:
        key: The migration.
        db_alias: The database.
        status: Only those that are ``"open"``, ``"retried"`` or ``"accepted"``; None for all.
        limit: At most this number; None for all, which may need much memory.
        offset: Leave out this number.
        with_tracebacks: Whether tracebacks are read at once, too; without them, one is read when it is asked for.
    """
    wanted = FailureFilter(status)
    options: dict[str, Any] = {"limit": limit, "offset": offset, "with_tracebacks": with_tracebacks}
    return recorder.get_failures(_get_attempt_uuid(key, db_alias), db_alias, wanted, **options)


def iterate_failures(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    status: str | None = None,
    limit: int | None = None,
    with_tracebacks: bool = False,
) -> Iterator[MigrationFailure]:
    """Go through the objects that ``get_failures`` would return, with few of them in memory at a time."""
    attempt_uuid, wanted = _get_attempt_uuid(key, db_alias), FailureFilter(status)
    return recorder.iterate_failures(attempt_uuid, db_alias, wanted, limit=limit, with_tracebacks=with_tracebacks)


def get_acceptable_failures(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    ids: Collection[str] | None = None,
    until: datetime | None = None,
    limit: int | None = None,
) -> list[MigrationFailure]:
    """Return open failures of objects, oldest first, without tracebacks: those with these ids, that failed by then."""
    wanted = ACCEPTABLE._replace(ids=ids, until=until)
    attempt_uuid = _get_attempt_uuid(key, db_alias)
    return recorder.get_failures(attempt_uuid, db_alias, wanted, limit=limit, with_tracebacks=False)


def get_last_failed_at(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> datetime | None:
    """Return when the last object failed that may be accepted now; None if there is none."""
    return find_last_failed_at(_get_attempt_uuid(key, db_alias), db_alias, ACCEPTABLE)


def count_failures(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> FailureCounts:
    """Return how many objects failed in the record's attempt: all, open ones, and those that may be accepted."""
    return recorder.count_failures(_get_attempt_uuid(key, db_alias), db_alias)


def _get_attempt_uuid(key: Key, db_alias: str) -> uuid.UUID | None:
    record = get_record(key, db_alias)
    return record.attempt_uuid if record is not None else None


def get_preparation(key: Key, db_alias: str) -> Preparation:
    """Return what a person should know before a start, in about a second; raises LoadError as ``get_migration``."""
    return prepare(get_definition(key, db_alias), db_alias)


def count_objects(migration: BaseMigration, db_alias: str, *, seconds: float = COUNT_SECONDS) -> Count | None:
    """Return how many rows a migration would visit; None if it does not go through rows.

    Args:
        migration: The definition.
        db_alias: The database.
        seconds: A count that takes longer is replaced by an estimate.

    Raises:
        Exception: Whatever the author's ``get_queryset`` raises, or InvalidDefinition.
    """
    return get_kind(migration).count_objects(db_alias, seconds)


def get_allowed_actions(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Return what a person may do now: some of start, pause, resume, retry, recover, cancel, restart, fake, reset.

    ``recover`` is among them only while the run is stalled; without a working file a migration can only be stopped and
    reset.
    """
    return get_progress(key, db_alias).allowed_actions


def wait_for_migration(
    key: Key, db_alias: str = DEFAULT_DB_ALIAS, *, timeout: float, poll_seconds: float = 0.2
) -> Progress:
    """Wait until a migration is neither enqueued nor running any more, and return where it stands then.

    Raises:
        WaitTimedOut: It is still at work after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        current = get_progress(key, db_alias)
        if current.status not in states.ACTIVE:
            return current
        if time.monotonic() >= deadline:
            raise WaitTimedOut(
                f"{current.key} is still {states.LABELS[current.status]} on database '{db_alias}' after {timeout:g} "
                "seconds. It is still at work: wait again, or look at its progress.",
                key=current.key,
                db_alias=db_alias,
            )
        time.sleep(poll_seconds)


def migration_is_applied(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> bool:
    """Return whether a migration is applied on this database, and not merely begun; one query.

    Raises:
        MigrationNotFound: There is neither a file nor a record, so that a typo does not count as "not applied yet".
    """
    record = get_record(key, db_alias)
    return record is not None and record.status == states.APPLIED


def _get_progress_without_tables(migration: BaseMigration, db_alias: str) -> Progress:
    error = f"Database '{db_alias}' has no tables of massmigration. Run: manage.py migrate --database={db_alias}"
    return progress.make_progress(progress.Subject(migration.key, migration, error=error), db_alias)
