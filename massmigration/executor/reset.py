"""Reset: the record is forgotten, so that the migration counts as not run."""

from __future__ import annotations

from massmigration import recorder, states
from massmigration.databases.transactions import run_write
from massmigration.executor.moves import get_expected, refuse_changed
from massmigration.recorder import Author, Seen


def reset(key: str, db_alias: str, author: Author, *, seen: Seen | None = None) -> None:
    """Delete the record and its shards; its events stay."""
    record = get_expected(key, db_alias, "reset", seen)
    if record is None:
        raise recorder.refuse(key, db_alias, "reset", states.NOT_RUN)
    attempt_uuid = record.attempt_uuid
    if not run_write(db_alias, lambda: recorder.delete_record(key, db_alias, author, attempt_uuid, seen=seen)):
        raise refuse_changed(key, db_alias, "reset", seen)
