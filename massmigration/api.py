"""The programmatic interface: everything that the commands and the admin can do.

A key may be a string (``"places:0002_slugs"``), a tuple (``("places", "0002_slugs")``) or a migration. One that has
neither a file nor a record raises MigrationNotFound. ``user`` is the Django user who does it, ``actor`` a name and
``origin`` from where; they go into the audit trail. ``enqueue=False`` launches no backend: the work is left to the
caller. ``seen=Seen(attempt_uuid, status)`` refuses the action with IllegalMove if the record is no longer so.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from django.db import DEFAULT_DB_ALIAS

from massmigration import executor
from massmigration.databases.aliases import get_database_aliases
from massmigration.discovery.loader import get_loader
from massmigration.discovery.reference import parse
from massmigration.engine.progress import Progress, ShardProgress
from massmigration.executor import Acceptance
from massmigration.executor.readiness import Preparation
from massmigration.models import MigrationFailure, MigrationRecord
from massmigration.overview import (
    Key,
    count_failures,
    count_objects,
    get_acceptable_failures,
    get_all_migrations,
    get_all_progress,
    get_allowed_actions,
    get_definition,
    get_events,
    get_failures,
    get_last_failed_at,
    get_migration,
    get_preparation,
    get_progress,
    get_record,
    iterate_failures,
    migration_is_applied,
    resolve,
    wait_for_migration,
)
from massmigration.recorder import Author, FailureCounts, Seen, has_tables

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser


__all__ = [
    "Acceptance",
    "FailureCounts",
    "Key",
    "Preparation",
    "Progress",
    "Seen",
    "ShardProgress",
    "accept_failures",
    "cancel_migration",
    "count_failures",
    "count_objects",
    "fake_migration",
    "get_acceptable_failures",
    "get_all_migrations",
    "get_all_progress",
    "get_allowed_actions",
    "get_database_aliases",
    "get_events",
    "get_failures",
    "get_last_failed_at",
    "get_migration",
    "get_preparation",
    "get_progress",
    "get_record",
    "has_tables",
    "iterate_failures",
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


def start_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
    seen: Seen | None = None,
) -> MigrationRecord:
    """Make a new attempt and launch it; see ``massmigration.executor.start`` for the errors.

    Returns:
        The record, with the status ``enqueued``.
    """
    author = _get_author(key, user, actor, origin)
    return executor.start(get_definition(key, db_alias), db_alias, author, enqueue=enqueue, seen=seen)


def restart_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
    seen: Seen | None = None,
) -> MigrationRecord:
    """Begin again from the first row, whatever was done before; errors as ``start_migration``."""
    author = _get_author(key, user, actor, origin)
    return executor.restart(get_definition(key, db_alias), db_alias, author, enqueue=enqueue, seen=seen)


def pause_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    seen: Seen | None = None,
) -> MigrationRecord:
    """Stop after the current batch; returns at once. Raises IllegalMove unless it is enqueued or running."""
    return executor.pause(resolve(key, db_alias), db_alias, _get_author(key, user, actor, origin), seen=seen)


def resume_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
    seen: Seen | None = None,
) -> MigrationRecord:
    """Continue where it stopped. Raises IllegalMove unless it is paused."""
    author = _get_author(key, user, actor, origin)
    return executor.resume(get_definition(key, db_alias), db_alias, author, enqueue=enqueue, seen=seen)


def cancel_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    seen: Seen | None = None,
) -> MigrationRecord:
    """Give the attempt up; migrated rows are kept. Raises IllegalMove if there is none to give up."""
    return executor.cancel(resolve(key, db_alias), db_alias, _get_author(key, user, actor, origin), seen=seen)


def retry_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
    seen: Seen | None = None,
) -> MigrationRecord:
    """Try again what failed, then continue where it stopped. Raises IllegalMove unless it is failed."""
    author = _get_author(key, user, actor, origin)
    return executor.retry(get_definition(key, db_alias), db_alias, author, enqueue=enqueue, seen=seen)


def recover_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
    seen: Seen | None = None,
) -> MigrationRecord:
    """Hand shards whose worker is gone to a new one. Raises IllegalMove unless it is enqueued or running."""
    author = _get_author(key, user, actor, origin)
    return executor.recover(get_definition(key, db_alias), db_alias, author, enqueue=enqueue, seen=seen)


def accept_failures(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    reason: str,
    failures: Iterable[str | MigrationFailure] | None = None,
    until: datetime | None = None,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    enqueue: bool = True,
    seen: Seen | None = None,
) -> Acceptance:
    """Skip objects that failed; when no failure is open any more, a failed run continues.

    The arguments that all actions have are described at the top of this module.

    Args:
        reason: Why; the event keeps it.
        failures: Failures, their primary keys, or unambiguous prefixes of these; None for all that are open.
        until: Only those that failed no later.

    Raises:
        IllegalMove: It is not running, paused or failed.
        AcceptRefused: There is no reason, or what was named cannot be accepted.
    """
    ids = None
    if failures is not None:
        ids = [failure.pk if isinstance(failure, MigrationFailure) else failure for failure in failures]
    author = _get_author(key, user, actor, origin)
    return executor.accept(
        get_definition(key, db_alias), db_alias, author, reason, ids, until=until, seen=seen, enqueue=enqueue
    )


def fake_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    seen: Seen | None = None,
) -> MigrationRecord:
    """Mark a migration as applied without running it. Raises IllegalMove if it is running or applied."""
    author = _get_author(key, user, actor, origin)
    return executor.fake(get_definition(key, db_alias), db_alias, author, seen=seen)


def reset_migration(
    key: Key,
    db_alias: str = DEFAULT_DB_ALIAS,
    *,
    user: AbstractBaseUser | None = None,
    actor: str | None = None,
    origin: str = "api",
    seen: Seen | None = None,
) -> None:
    """Forget the record, so that the migration counts as not run. Raises IllegalMove while it is active."""
    executor.reset(resolve(key, db_alias), db_alias, _get_author(key, user, actor, origin), seen=seen)


ACTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "start": start_migration,
    "recover": recover_migration,
    "pause": pause_migration,
    "resume": resume_migration,
    "retry": retry_migration,
    "accept": accept_failures,
    "cancel": cancel_migration,
    "restart": restart_migration,
    "fake": fake_migration,
    "reset": reset_migration,
}
"""What does each action of a person, by its name in ``states.ACTIONS``."""


def _get_author(key: Key, user: AbstractBaseUser | None, actor: str | None, origin: str) -> Author:
    name = actor or (user.get_username() if user is not None else _get_system_user())
    definition = get_loader().migrations.get(parse(key) or "")
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
