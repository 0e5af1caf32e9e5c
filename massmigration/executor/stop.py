"""Pause and cancel: workers stop after the batch that they are working on, or lose it."""

from __future__ import annotations

from massmigration import recorder
from massmigration.databases.registry import get_database
from massmigration.executor.moves import Move
from massmigration.models import MigrationRecord
from massmigration.recorder import Author, Seen


def pause(key: str, db_alias: str, author: Author, *, seen: Seen | None = None) -> MigrationRecord:
    """Have workers stop after their current batch; returns at once."""
    move = Move("pause", key, db_alias, author, seen)
    move.make()
    return move.read_moved()


def cancel(key: str, db_alias: str, author: Author, *, seen: Seen | None = None) -> MigrationRecord:
    """Give the attempt up; batches that are not committed yet are rolled back."""

    def write(record: MigrationRecord) -> None:
        if record.attempt_uuid is not None:
            shards = recorder.get_shards(record.attempt_uuid, db_alias)
            recorder.free_shards(record.attempt_uuid, db_alias, shards=shards)
            # Read again, or a batch could be committed in between; where that cannot be done, none can be either.
            known = None if get_database(db_alias).can_read_own_writes else shards
            recorder.keep_totals(record.attempt_uuid, db_alias, shards=known)

    move = Move("cancel", key, db_alias, author, seen)
    move.make(also=write)
    return move.read_moved()
