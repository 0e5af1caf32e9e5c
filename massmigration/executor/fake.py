"""Fake: a person vouches for the data, and the migration counts as applied without a run."""

from __future__ import annotations

from massmigration import recorder
from massmigration.databases.aliases import check_database
from massmigration.databases.transactions import run_write
from massmigration.definitions.base import BaseMigration
from massmigration.executor.moves import get_expected, get_moved, insert_or_move
from massmigration.models import MigrationRecord
from massmigration.recorder import Author, Seen


def fake(migration: BaseMigration, db_alias: str, author: Author, *, seen: Seen | None = None) -> MigrationRecord:
    """Mark the migration as applied without running it; an attempt keeps its totals and loses its shards."""
    check_database(migration, db_alias)
    record = get_expected(migration.key, db_alias, "fake", seen)

    def write() -> None:
        insert_or_move(record, migration.key, db_alias, "fake", author, seen=seen, faked=True, reason="", error="")
        if record is not None and record.attempt_uuid is not None:
            recorder.keep_totals(record.attempt_uuid, db_alias)
            recorder.delete_shards(record.attempt_uuid, db_alias)

    run_write(db_alias, write)
    return get_moved(migration.key, db_alias, "fake")
