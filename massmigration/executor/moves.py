"""Makes a person's move: the record and what belongs to it change in one transaction, or the move is refused."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from massmigration import logs, recorder, states
from massmigration.databases.transactions import run_write
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationRecord
from massmigration.recorder import Author, Seen


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
    """Move an existing record, together with what belongs to the move, or raise IllegalMove.

    Args:
        key: The migration's key.
        db_alias: The database.
        action: A name in ``states.MOVES``.
        author: Who does it.
        also: Called in the same transaction with the record as it was before.
        of_attempt: The attempt that the record must have; None for any.
        seen: What a person has seen of the record; another state is refused.
        detail: One line for the event.
        cause: The error behind it, for the log.
        **fields: Further fields of the record to set.
    """

    def write() -> None:
        record = get_expected(key, db_alias, action, seen)
        if record is None:
            raise recorder.refuse(key, db_alias, action, states.NOT_RUN)
        same = of_attempt or record.attempt_uuid
        if not recorder.move(
            key, db_alias, action, author, of_attempt=same, seen=seen, detail=detail, cause=cause, **fields
        ):
            raise refuse_changed(key, db_alias, action, seen)
        if also is not None:
            also(record)

    run_write(db_alias, write)


def insert_or_move(
    record: MigrationRecord | None,
    key: str,
    db_alias: str,
    action: str,
    author: Author,
    *,
    seen: Seen | None,
    **fields: Any,
) -> None:
    """Move a record, or insert it with the status that the move leads to; raise IllegalMove if it has changed.

    To be called in a write transaction.

    Args:
        record: As it was read before the transaction; None if there was none.
        key: The migration's key.
        db_alias: The database.
        action: A name in ``states.MOVES``.
        author: Who does it.
        seen: What a person has seen of the record; another state is refused.
        **fields: Further fields of the record to set.
    """
    if record is None:
        is_done = recorder.insert_record(key, db_alias, status=states.MOVES[action].target, **fields)
        if is_done:
            recorder.add_event(key, db_alias, action, author, fields.get("attempt_uuid"))
    else:
        same = record.attempt_uuid
        is_done = recorder.move(key, db_alias, action, author, of_attempt=same, seen=seen, **fields)
    if not is_done:
        raise refuse_changed(key, db_alias, action, seen)


def refuse_changed(key: str, db_alias: str, action: str, seen: Seen | None) -> IllegalMove:
    """Return the error that refuses a move because another person or process has just changed the record."""
    record = get_expected(key, db_alias, action, seen)
    return recorder.refuse(key, db_alias, action, record.status if record is not None else states.NOT_RUN)


def get_expected(key: str, db_alias: str, action: str, seen: Seen | None) -> MigrationRecord | None:
    """Return the record, or None if there is none; raise IllegalMove if it is not as a person has seen it."""
    record = recorder.get_record(key, db_alias)
    recorder.check_seen(record, seen, key, db_alias, action)
    return record


def get_legal(key: str, db_alias: str, action: str, seen: Seen | None) -> MigrationRecord:
    """Return the record, or raise IllegalMove if the action is not legal for it."""
    record = get_expected(key, db_alias, action, seen)
    status = record.status if record is not None else states.NOT_RUN
    if record is None or not states.is_legal(action, status):
        raise recorder.refuse(key, db_alias, action, status)
    return record


def get_moved(key: str, db_alias: str, action: str) -> MigrationRecord:
    """Return the record after a move; raise IllegalMove if it was reset in the meantime."""
    record = recorder.get_record(key, db_alias)
    if record is None:
        raise recorder.refuse(key, db_alias, action, states.NOT_RUN)
    return record
