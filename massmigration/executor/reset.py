"""Reset: the record is forgotten, so that the migration counts as not run."""

from __future__ import annotations

from massmigration import recorder
from massmigration.databases.transactions import run_write
from massmigration.executor.moves import Move
from massmigration.recorder import Author, Seen


def reset(key: str, db_alias: str, author: Author, *, seen: Seen | None = None) -> None:
    """Delete the record and its shards; its events stay."""
    move = Move("reset", key, db_alias, author, seen)
    record = move.read()
    if record is None:
        raise move.refuse(None)
    attempt_uuid = record.attempt_uuid
    if not run_write(db_alias, lambda: recorder.delete_record(key, db_alias, author, attempt_uuid, seen=seen)):
        raise move.refuse(move.read())
