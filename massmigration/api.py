"""The programmatic interface: everything that the commands and the admin can do.

A key may be a string (``"places:0002_slugs"``), a tuple (``("places", "0002_slugs")``) or a migration. ``user`` is a Django
user and ``actor`` a name; they go into the audit trail. ``enqueue=False`` leaves the work to the caller.
"""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.db import DEFAULT_DB_ALIAS, connections

from massmigration import executor, recorder, states
from massmigration.databases import check_alias, get_database_aliases
from massmigration.definitions.base import BaseMigration, as_key
from massmigration.engine import progress
from massmigration.engine.progress import Progress
from massmigration.exceptions import LoadError, MigrationNotFound, WaitTimedOut
from massmigration.loader import get_loader
from massmigration.models import MigrationEvent, MigrationFailure, MigrationRecord
from massmigration.recorder import Author

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

Key = str | tuple[str, str] | BaseMigration

__all__ = [
    "Key",
    "Progress",
    "cancel_migration",
    "fake_migration",
    "get_all_migrations",
    "get_all_progress",
    "get_allowed_actions",
    "get_database_aliases",
    "get_events",
    "get_failures",
    "get_migration",
    "get_progress",
    "get_record",
    "migration_is_applied",
    "pause_migration",
    "recover_migration",
    "reset_migration",
    "restart_migration",
    "resume_migration",
    "retry_migration",
    "start_migration",
    "wait_for_migration",
]


def get_all_migrations() -> list[BaseMigration]:
    """Return every migration whose file works, dependencies first."""
    loader = get_loader()
    ordered = [key for key in loader.graph.order() if key in loader.migrations]
    return [loader.migrations[key] for key in ordered]


def get_migration(key: Key) -> BaseMigration:
    """Return a migration.

    Raises:
        MigrationNotFound: There is no such file.
        LoadError: Its file, or one that it depends on, does not work.
    """
    return get_loader().get(_as_text(key))


def get_record(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> MigrationRecord | None:
    """Return the record of a migration, or None if it was not run on this database."""
    check_alias(db_alias)
    return recorder.get_record(_as_text(key), db_alias)


def get_progress(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> Progress:
    """Return where a migration stands; also one whose file is broken or gone.

    Raises:
        MigrationNotFound: There is neither a file nor a record.
    """
    check_alias(db_alias)
    text, loader = _as_text(key), get_loader()
    try:
        migration = loader.get(text)
    except MigrationNotFound:
        found = progress.get_progress(text, db_alias, None, missing_status=states.ORPHANED)
        if found.attempt_uuid is None and not found.faked and recorder.get_record(text, db_alias) is None:
            raise
        return found
    except LoadError as error:
        return progress.get_progress(
            text, db_alias, None, missing_status=states.BROKEN, error=str(error)
        )
    return progress.get_progress(text, db_alias, migration, source_hash=loader.source_hash(text))


def get_all_progress(db_aliases: Iterable[str] | None = None) -> list[Progress]:
    """Return where every migration stands, on every database that it may run on, dependencies first.

    Files that are broken and records without a file come last.

    Args:
        db_aliases: Only these databases; None for all.
    """
    loader = get_loader()
    wanted = list(connections) if db_aliases is None else list(db_aliases)
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


def get_events(
    key: Key | None = None, db_alias: str = DEFAULT_DB_ALIAS, *, limit: int = 50
) -> list[MigrationEvent]:
    """Return the newest ``limit`` events of a migration, or of all if ``key`` is None; oldest first."""
    check_alias(db_alias)
    return recorder.get_events(None if key is None else _as_text(key), db_alias, limit)


def get_failures(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> list[MigrationFailure]:
    """Return the objects that failed in the record's attempt, oldest first."""
    record = get_record(key, db_alias)
    return recorder.get_failures(record.attempt_uuid if record is not None else None, db_alias)


def get_allowed_actions(key: Key, db_alias: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Return what a person may do now: some of start, pause, resume, retry, recover, cancel, restart, fake, reset.

    ``recover`` is among them only while nobody works; a migration without a working file can only be stopped and reset.
    """
    status = get_progress(key, db_alias)
    record = get_record(key, db_alias)
    actions = states.get_legal_actions(record.status if record is not None else states.NOT_RUN)
    if status.status in (states.BROKEN, states.ORPHANED):
        return [action for action in actions if action in ("pause", "cancel", "reset")]
    if not status.stalled:
        actions = [action for action in actions if action != "recover"]
    return actions


def start_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
) -> MigrationRecord:
    """Make a new attempt and set it going; see ``massmigration.executor.start`` for the errors.

    Returns:
        The record, with the status ``enqueued``.
    """
    author = _get_author(key, user, actor, origin)
    return executor.start(get_migration(key), db_alias, author, enqueue=enqueue)


def restart_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
) -> MigrationRecord:
    """Begin anew, from the first row, whatever was done before; errors as ``start_migration``."""
    author = _get_author(key, user, actor, origin)
    return executor.restart(get_migration(key), db_alias, author, enqueue=enqueue)


def pause_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
) -> MigrationRecord:
    """Stop after the batch in hand; returns at once. Raises IllegalMove unless it is enqueued or running."""
    check_alias(db_alias)
    return executor.pause(_as_text(key), db_alias, _get_author(key, user, actor, origin))


def resume_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
) -> MigrationRecord:
    """Go on from the cursors. Raises IllegalMove unless it is paused."""
    author = _get_author(key, user, actor, origin)
    return executor.resume(get_migration(key), db_alias, author, enqueue=enqueue)


def cancel_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
) -> MigrationRecord:
    """Give the attempt up; what is migrated stays. Raises IllegalMove if there is none to give up."""
    check_alias(db_alias)
    return executor.cancel(_as_text(key), db_alias, _get_author(key, user, actor, origin))


def retry_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
) -> MigrationRecord:
    """Try what failed again, then go on from the cursors. Raises IllegalMove unless it is failed."""
    author = _get_author(key, user, actor, origin)
    return executor.retry(get_migration(key), db_alias, author, enqueue=enqueue)


def recover_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
) -> MigrationRecord:
    """Hand shards whose worker is gone to a new one. Raises IllegalMove unless it is enqueued or running."""
    author = _get_author(key, user, actor, origin)
    return executor.recover(get_migration(key), db_alias, author, enqueue=enqueue)


def fake_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
) -> MigrationRecord:
    """Mark a migration as applied without running it. Raises IllegalMove if it is running or applied."""
    author = _get_author(key, user, actor, origin)
    return executor.fake(get_migration(key), db_alias, author)


def reset_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
) -> None:
    """Forget the record, so that the migration counts as not run. Raises IllegalMove while it is active."""
    check_alias(db_alias)
    executor.reset(_as_text(key), db_alias, _get_author(key, user, actor, origin))


def wait_for_migration(
    key: Key, db_alias: str = DEFAULT_DB_ALIAS, *, timeout: float, poll_seconds: float = 0.2
) -> Progress:
    """Wait until a migration is neither enqueued nor running any more.

    Args:
        key: The migration.
        db_alias: The database.
        timeout: At most so many seconds.
        poll_seconds: How often to look.

    Returns:
        Where it stands then.

    Raises:
        WaitTimedOut: It is still at work after ``timeout``.
    """
    deadline = time.monotonic() + timeout
    while True:
        current = get_progress(key, db_alias)
        if current.status not in states.ACTIVE:
            return current
        if time.monotonic() >= deadline:
            raise WaitTimedOut(
                f"{current.key} is still {states.LABELS[current.status]} on database '{db_alias}' after {timeout:g} "
                "seconds. It goes on; wait again, or look at its progress.",
                key=current.key,
                db_alias=db_alias,
            )
        time.sleep(poll_seconds)


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


def _as_text(key: Key) -> str:
    return key.key if isinstance(key, BaseMigration) else as_key(key)


def _get_author(key: Key, user: AbstractBaseUser | None, actor: str | None, origin: str) -> Author:
    name = actor or (user.get_username() if user is not None else _get_system_user())
    loader = get_loader()
    definition = loader.migrations.get(_as_text(key))
    return Author(
        name,
        origin,
        user_id=str(user.pk) if user is not None else "",
        sender=type(definition) if definition is not None else None,
    )


def _get_system_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"
