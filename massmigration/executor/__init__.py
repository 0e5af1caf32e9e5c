"""What a person may do to a migration: start, pause, resume, cancel, retry, restart, fake, reset, recover."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from massmigration import logs, recorder, states
from massmigration.backends.base import get_backend, get_backend_path
from massmigration.databases.aliases import check_database
from massmigration.databases.transactions import is_document_store, run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine import versions
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.fitting import check_fits
from massmigration.engine.leases import is_live
from massmigration.engine.methods import call
from massmigration.exceptions import (
    IllegalMove,
)
from massmigration.executor.launch import launch_after_commit
from massmigration.executor.readiness import check_declarations, check_definition, check_dependencies
from massmigration.executor.retry import open_failed, open_in_parts
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
    """Make a new attempt and set it going.

    Args:
        migration: The definition.
        db_alias: The database.
        author: Who does it.
        enqueue: Whether to launch the backend; a command that works by itself does not.
        action: ``"start"``, or ``"restart"`` to begin anew whatever was done before.
        seen: What a person has seen of the record; another state is refused.

    Returns:
        The record, ENQUEUED.

    Raises:
        IllegalMove: The status does not allow it, or somebody else was quicker.
        DependencyNotApplied: Something has to be applied before.
        DatabaseNotAllowed: The migration does not run on this database.
        InvalidDefinition: The migration cannot be worked.
        ConfigurationError: The backend cannot run it.
        BackendUnreachable: The backend did not take it; the record is FAILED and can be retried.
    """
    check_declarations(migration)
    check_database(migration, db_alias)
    record = recorder.get_record(migration.key, db_alias)
    recorder.check_seen(record, seen, migration.key, db_alias, action)
    status = record.status if record is not None else states.NOT_RUN
    if not states.is_legal(action, status):
        raise recorder.refuse(migration.key, db_alias, action, status)
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
        fresh: dict[str, Any] = {"reason": "", "error": "", "faked": False, "attempt_uuid": attempt.uuid}
        if record is None:
            won = recorder.insert_record(migration.key, db_alias, status=states.ENQUEUED, **fresh)
            if won:
                recorder.add_event(migration.key, db_alias, action, author, attempt.uuid)
        else:
            same = record.attempt_uuid
            won = recorder.move(migration.key, db_alias, action, author, of_attempt=same, seen=seen, **fresh)
            recorder.delete_shards(same if won else None, db_alias)
        if not won:
            raise _refuse_now(migration.key, db_alias, action, seen)
        recorder.add_attempt(attempt, db_alias)

    run_write(db_alias, write)
    if enqueue:
        launch_after_commit(migration, db_alias, attempt.uuid, author)
    return _get_record(migration.key, db_alias)


def restart(
    migration: BaseMigration, db_alias: str, author: Author, *, enqueue: bool = True, seen: Seen | None = None
) -> MigrationRecord:
    """Begin anew, from the first row, whatever was done before; arguments and errors as ``start``."""
    return start(migration, db_alias, author, enqueue=enqueue, action="restart", seen=seen)


def pause(key: str, db_alias: str, author: Author, *, seen: Seen | None = None) -> MigrationRecord:
    """Stop after the batch in hand; returns at once."""
    move_or_refuse(key, db_alias, "pause", author, seen=seen)
    return _get_record(key, db_alias)


def cancel(key: str, db_alias: str, author: Author, *, seen: Seen | None = None) -> MigrationRecord:
    """Give the attempt up; batches that are not committed yet are rolled back."""

    def write(record: MigrationRecord) -> None:
        if record.attempt_uuid is not None:
            shards = recorder.get_shards(record.attempt_uuid, db_alias)
            recorder.free_shards(record.attempt_uuid, db_alias, shards=shards)
            # Summed after that, or a batch could come in between; a document store lets none do so.
            known = shards if is_document_store(db_alias) else None
            recorder.keep_totals(record.attempt_uuid, db_alias, shards=known)

    move_or_refuse(key, db_alias, "cancel", author, also=write, seen=seen)
    return _get_record(key, db_alias)


def resume(
    migration: BaseMigration, db_alias: str, author: Author, *, enqueue: bool = True, seen: Seen | None = None
) -> MigrationRecord:
    """Go on from the cursors after a pause; arguments as ``start``."""
    return _go_on(migration, db_alias, author, "resume", enqueue=enqueue, seen=seen)


def retry(
    migration: BaseMigration, db_alias: str, author: Author, *, enqueue: bool = True, seen: Seen | None = None
) -> MigrationRecord:
    """Try what failed again, then go on from the cursors; arguments as ``start``."""
    return _go_on(migration, db_alias, author, "retry", enqueue=enqueue, seen=seen)


def recover(
    migration: BaseMigration, db_alias: str, author: Author, *, enqueue: bool = True, seen: Seen | None = None
) -> MigrationRecord:
    """Hand shards whose worker is gone to a new one; does nothing while all of them are worked on."""
    record = recorder.get_record(migration.key, db_alias)
    recorder.check_seen(record, seen, migration.key, db_alias, "recover")
    status = record.status if record is not None else states.NOT_RUN
    if record is None or record.attempt_uuid is None or not states.is_legal("recover", status):
        raise recorder.refuse(migration.key, db_alias, "recover", status)
    attempt_uuid = record.attempt_uuid
    if any(is_live(shard) for shard in recorder.get_shards(attempt_uuid, db_alias)):
        recovered = run_write(db_alias, lambda: recorder.free_shards(attempt_uuid, db_alias, only_expired=True))
        if not recovered:
            return record
    return _go_on(migration, db_alias, author, "recover", enqueue=enqueue, seen=seen)


def fake(migration: BaseMigration, db_alias: str, author: Author, *, seen: Seen | None = None) -> MigrationRecord:
    """Mark the migration as applied without running it."""
    check_database(migration, db_alias)
    record = recorder.get_record(migration.key, db_alias)
    recorder.check_seen(record, seen, migration.key, db_alias, "fake")

    def write() -> None:
        if record is None:
            if not recorder.insert_record(migration.key, db_alias, status=states.APPLIED, faked=True):
                raise _refuse_now(migration.key, db_alias, "fake", seen)
            recorder.add_event(migration.key, db_alias, "fake", author)
            return
        same = record.attempt_uuid
        fields: dict[str, Any] = {"faked": True, "reason": "", "error": ""}
        if not recorder.move(migration.key, db_alias, "fake", author, of_attempt=same, seen=seen, **fields):
            raise _refuse_now(migration.key, db_alias, "fake", seen)
        if same is not None:
            recorder.keep_totals(same, db_alias)
            recorder.delete_shards(same, db_alias)

    run_write(db_alias, write)
    return _get_record(migration.key, db_alias)


def reset(key: str, db_alias: str, author: Author, *, seen: Seen | None = None) -> None:
    """Forget the record, so that the migration counts as not run; its events stay."""
    record = recorder.get_record(key, db_alias)
    recorder.check_seen(record, seen, key, db_alias, "reset")
    if record is None:
        raise recorder.refuse(key, db_alias, "reset", states.NOT_RUN)
    attempt_uuid = record.attempt_uuid
    if not run_write(db_alias, lambda: recorder.delete_record(key, db_alias, author, attempt_uuid, seen=seen)):
        raise _refuse_now(key, db_alias, "reset", seen)


def _go_on(
    migration: BaseMigration, db_alias: str, author: Author, action: str, *, enqueue: bool, seen: Seen | None
) -> MigrationRecord:
    check_database(migration, db_alias)
    if enqueue:
        get_backend(migration).check_launch(db_alias, origin=author.origin)
    if action != "recover":
        check_definition(migration, db_alias)
    attempts: list[uuid.UUID] = []

    def write(record: MigrationRecord) -> None:
        if record.attempt_uuid is None:
            return
        attempts.append(record.attempt_uuid)
        shards = recorder.get_shards(record.attempt_uuid, db_alias)
        if action == "retry":
            open_failed(migration, record, shards, db_alias)
        recorder.free_shards(
            record.attempt_uuid,
            db_alias,
            only_expired=action == "recover",
            forgets_takeovers=action == "retry",
            shards=shards,
        )
        versions.adopt(record.attempt_uuid, db_alias, author)

    recorder.check_seen(recorder.get_record(migration.key, db_alias), seen, migration.key, db_alias, action)
    _check_fits(migration, db_alias, action)
    if action == "retry":
        open_in_parts(migration, db_alias)
    fields: dict[str, Any] = {} if action == "recover" else {"reason": "", "error": ""}
    move_or_refuse(migration.key, db_alias, action, author, also=write, seen=seen, **fields)
    if attempts:
        make_finish_if_due(migration, db_alias, attempts[-1])
        if enqueue:
            launch_after_commit(migration, db_alias, attempts[-1], author, may_fail=action != "recover")
    return _get_record(migration.key, db_alias)


def _check_fits(migration: BaseMigration, db_alias: str, action: str) -> None:
    """Raise InvalidDefinition if the record's attempt was planned for something else than the definition does now."""
    record = recorder.get_record(migration.key, db_alias)
    if record is None or not states.is_legal(action, record.status):
        return  # the move itself is refused
    attempt = recorder.get_attempt(record.attempt_uuid, db_alias)
    if attempt is not None:
        check_fits(migration, db_alias, attempt)


def move_or_refuse(
    key: str,
    db_alias: str,
    action: str,
    author: Author,
    *,
    also: Callable[[MigrationRecord], None] | None = None,
    of_attempt: uuid.UUID | None = None,
    seen: Seen | None = None,
    detail: str = "",
    cause: logs.Cause | None = None,
    **fields: Any,
) -> None:
    """Make the move and what belongs to it in one transaction, or raise IllegalMove.

    Args:
        key: The migration's key.
        db_alias: The database.
        action: A name in ``states.MOVES``.
        author: Who does it.
        also: Called with the record as it was, in the same transaction.
        of_attempt: Only if this is still the record's attempt; None for whichever it is.
        seen: What a person has seen of the record; another state is refused.
        detail: One line for the event.
        cause: What is behind it, for the log.
        **fields: Further fields of the record to set.
    """

    def write() -> None:
        record = recorder.get_record(key, db_alias)
        recorder.check_seen(record, seen, key, db_alias, action)
        status = record.status if record is not None else states.NOT_RUN
        same = of_attempt or (record.attempt_uuid if record is not None else None)
        if record is None or not recorder.move(
            key, db_alias, action, author, of_attempt=same, seen=seen, detail=detail, cause=cause, **fields
        ):
            raise (
                recorder.refuse(key, db_alias, action, status)
                if not states.is_legal(action, status)
                else _refuse_now(key, db_alias, action, seen)
            )
        if also is not None:
            also(record)

    run_write(db_alias, write)


def _refuse_now(key: str, db_alias: str, action: str, seen: Seen | None = None) -> IllegalMove:
    """Return the refusal for a move that somebody else forestalled."""
    record = recorder.get_record(key, db_alias)
    recorder.check_seen(record, seen, key, db_alias, action)
    return recorder.refuse(key, db_alias, action, record.status if record is not None else states.NOT_RUN)


def _get_record(key: str, db_alias: str) -> MigrationRecord:
    record = recorder.get_record(key, db_alias)
    if record is None:
        raise recorder.refuse(key, db_alias, "pause", states.NOT_RUN)
    return record
