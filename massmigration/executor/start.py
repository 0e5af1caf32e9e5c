"""Start and restart: a new attempt, which visits every row."""

from __future__ import annotations

from massmigration import recorder, states
from massmigration.backends.base import get_backend, get_backend_path
from massmigration.databases.aliases import check_database
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine import versions
from massmigration.engine.kinds import get_kind
from massmigration.engine.methods import call
from massmigration.executor.launch import launch_after_commit
from massmigration.executor.moves import Move
from massmigration.executor.readiness import check_definition, check_dependencies
from massmigration.models import MigrationAttempt, MigrationRecord
from massmigration.recorder import Author, Seen


def start(
    migration: BaseMigration,
    db_alias: str,
    author: Author,
    *,
    enqueue: bool = True,
    action: str = "start",
    seen: Seen | None = None,
) -> MigrationRecord:
    """Make a new attempt and launch it.

    Args:
        migration: The definition.
        db_alias: The database.
        author: Who does it.
        enqueue: Whether to launch the backend; a command that works by itself does not.
        action: ``"start"``, or ``"restart"`` to begin again whatever was done before.
        seen: What a person has seen of the record; another state is refused.

    Returns:
        The record, ENQUEUED.

    Raises:
        IllegalMove: The status does not allow it, or another process changed it first.
        DependencyNotApplied: Something has to be applied before.
        DatabaseNotAllowed: The migration does not run on this database.
        InvalidDefinition: The migration cannot be worked.
        ConfigurationError: The backend cannot run it.
        BackendUnreachable: The backend did not take it; the record is FAILED and can be retried.
    """
    get_kind(migration).check_declarations()
    check_database(migration, db_alias)
    move = Move(action, migration.key, db_alias, author, seen)
    record = move.read()
    if not states.is_legal(action, states.NOT_RUN if record is None else record.status):
        raise move.refuse(record)
    check_dependencies(migration, db_alias)
    backend = get_backend(migration)
    if enqueue:
        backend.check_launch(db_alias, origin=author.origin)
    check_definition(migration, db_alias)
    call(migration, "before_start", db_alias)
    attempt = MigrationAttempt(
        key=migration.key,
        backend=get_backend_path(migration),
        started_by=author.actor[:255],
        source_hash=versions.get_own_hash(migration.key),
    )

    def write() -> None:
        move.make_or_insert(record, reason="", error="", faked=False, attempt_uuid=attempt.uuid)
        if record is not None:
            recorder.delete_shards(record.attempt_uuid, db_alias)
        recorder.add_attempt(attempt, db_alias)

    run_write(db_alias, write)
    if enqueue:
        launch_after_commit(migration, db_alias, attempt.uuid, author)
    return move.read_moved()


def restart(
    migration: BaseMigration, db_alias: str, author: Author, *, enqueue: bool = True, seen: Seen | None = None
) -> MigrationRecord:
    """Begin again from the first row, whatever was done before; arguments and errors as ``start``."""
    return start(migration, db_alias, author, enqueue=enqueue, action="restart", seen=seen)
