"""Resume, retry and recover: the same attempt continues where it stopped."""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple

from massmigration import recorder
from massmigration.backends.base import get_backend
from massmigration.databases.aliases import check_database
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.engine import versions
from massmigration.engine.finish import make_finish_if_due
from massmigration.engine.fitting import check_fits
from massmigration.engine.leases import is_live
from massmigration.executor.launch import launch_after_commit
from massmigration.executor.moves import Move
from massmigration.executor.readiness import check_definition
from massmigration.executor.reopen import open_failed, open_in_parts
from massmigration.models import MigrationRecord
from massmigration.recorder import Author, Seen


class _Way(NamedTuple):
    """One way to continue an attempt."""

    action: str  # A name in ``states.MOVES``.
    opens_failed: bool = False  # Is what failed made ready again, while workers that were lost no longer count?
    # Is the run at work, and only shards are taken whose worker is gone? Nothing else changes: if the backend cannot
    # be reached the record stays as it is, so that the next recovery tries again.
    is_repair: bool = False


_RESUME, _RETRY, _RECOVER = _Way("resume"), _Way("retry", opens_failed=True), _Way("recover", is_repair=True)


def resume(
    migration: BaseMigration, db_alias: str, author: Author, *, enqueue: bool = True, seen: Seen | None = None
) -> MigrationRecord:
    """Continue after a pause; arguments as ``start``."""
    return _go_on(migration, db_alias, author, _RESUME, enqueue=enqueue, seen=seen)


def retry(
    migration: BaseMigration, db_alias: str, author: Author, *, enqueue: bool = True, seen: Seen | None = None
) -> MigrationRecord:
    """Try again what failed, then continue; arguments as ``start``."""
    return _go_on(migration, db_alias, author, _RETRY, enqueue=enqueue, seen=seen)


def recover(
    migration: BaseMigration, db_alias: str, author: Author, *, enqueue: bool = True, seen: Seen | None = None
) -> MigrationRecord:
    """Hand shards whose worker is gone to a new one; does nothing while all of them are worked on."""
    move = Move("recover", migration.key, db_alias, author, seen)
    record = move.read_legal()
    if record.attempt_uuid is None:
        raise move.refuse(record)
    attempt_uuid = record.attempt_uuid
    if any(is_live(shard) for shard in recorder.get_shards(attempt_uuid, db_alias)):
        recovered = run_write(db_alias, lambda: recorder.free_shards(attempt_uuid, db_alias, only_expired=True))
        if not recovered:
            return record
    return _go_on(migration, db_alias, author, _RECOVER, enqueue=enqueue, seen=seen)


def _go_on(
    migration: BaseMigration, db_alias: str, author: Author, way: _Way, *, enqueue: bool, seen: Seen | None
) -> MigrationRecord:
    check_database(migration, db_alias)
    if enqueue:
        get_backend(migration).check_launch(db_alias, origin=author.origin)
    if not way.is_repair:
        check_definition(migration, db_alias)
    move = Move(way.action, migration.key, db_alias, author, seen)
    attempts: list[uuid.UUID] = []

    def write(record: MigrationRecord) -> None:
        if record.attempt_uuid is None:
            return
        attempts.append(record.attempt_uuid)
        shards = recorder.get_shards(record.attempt_uuid, db_alias)
        if way.opens_failed:
            open_failed(migration, record, shards, db_alias)
        recorder.free_shards(
            record.attempt_uuid,
            db_alias,
            only_expired=way.is_repair,
            forgets_takeovers=way.opens_failed,
            shards=shards,
        )
        versions.adopt(record.attempt_uuid, db_alias, author)

    attempt = recorder.get_attempt(move.read_legal().attempt_uuid, db_alias)
    if attempt is not None:
        check_fits(migration, db_alias, attempt)
    if way.opens_failed:
        open_in_parts(migration, db_alias)
    fields: dict[str, Any] = {} if way.is_repair else {"reason": "", "error": ""}
    move.make(also=write, **fields)
    if attempts:
        make_finish_if_due(migration, db_alias, attempts[-1])
        if enqueue:
            launch_after_commit(migration, db_alias, attempts[-1], author, may_fail=not way.is_repair)
    return move.read_moved()
