"""Fake: a person vouches for the data, and the migration counts as applied without a run."""

from __future__ import annotations

from massmigration import recorder
from massmigration.databases.aliases import check_database
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.executor.moves import Move
from massmigration.models import MigrationRecord
from massmigration.recorder import Author, Seen


def fake(migration: BaseMigration, db_alias: str, author: Author, *, seen: Seen | None = None) -> MigrationRecord:
    """Mark the migration as applied without running it; an attempt keeps its totals and loses its shards."""
    check_database(migration, db_alias)
    move = Move("fake", migration.key, db_alias, author, seen)
    record = move.read()

    def write() -> None:
        move.make_or_insert(record, faked=True, reason="", error="")
        if record is not None and record.attempt_uuid is not None:
            recorder.keep_totals(record.attempt_uuid, db_alias)
            recorder.delete_shards(record.attempt_uuid, db_alias)

    run_write(db_alias, write)
    return move.read_moved()
