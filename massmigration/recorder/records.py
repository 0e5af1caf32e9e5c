"""Writes records: a change of one is a conditional UPDATE with its event, if it is still as a person saw it."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.utils import timezone

from massmigration import logs, states, wording
from massmigration.databases.redaction import clean_values
from massmigration.databases.registry import get_database
from massmigration.exceptions import IllegalMove
from massmigration.models import MigrationRecord
from massmigration.recorder.events import Author, add_event
from massmigration.recorder.shards import delete_shards


class Seen(NamedTuple):
    """What a person has seen of a record before they decided.

    Attributes:
        attempt_uuid: The record's attempt; None if it had none, or there was no record.
        status: Its status; empty if it does not matter, as for a pause.
    """

    attempt_uuid: uuid.UUID | None
    status: str = ""


def check_seen(record: MigrationRecord | None, seen: Seen | None, key: str, db_alias: str, action: str) -> None:
    """Raise IllegalMove if a record is no longer as a person has seen it."""
    attempt_uuid, status = (None, states.NOT_RUN) if record is None else (record.attempt_uuid, record.status)
    if seen is None or (seen.attempt_uuid == attempt_uuid and seen.status in ("", status)):
        return
    is_same_attempt = record is None or seen.attempt_uuid in (None, attempt_uuid)
    sentence = wording.get_stale_refusal(key, db_alias, status, is_same_attempt=is_same_attempt)
    raise IllegalMove(sentence, key=key, db_alias=db_alias, status=status, action=action)


def get_record(key: str, db_alias: str) -> MigrationRecord | None:
    """Return the record, or None if the migration was not run on this database."""
    return MigrationRecord.objects.using(db_alias).filter(pk=key).first()


def lock_record(key: str, db_alias: str) -> MigrationRecord | None:
    """Return the record, which no other process moves until the transaction ends.

    On SQLite a write transaction keeps all others out anyway; on a document store one of two commits fails.
    """
    records = MigrationRecord.objects.using(db_alias).filter(pk=key)
    return (records.select_for_update() if get_database(db_alias).has_row_locks else records).first()


def get_records(keys: Collection[str], db_alias: str) -> dict[str, MigrationRecord]:
    """Return the records of several migrations by their keys, in one query."""
    wanted = set(keys)
    rows = MigrationRecord.objects.using(db_alias).all()
    return {record.key: record for record in rows.iterator() if record.key in wanted}


def get_keys(db_alias: str) -> list[str]:
    """Return the keys of all records."""
    return sorted(MigrationRecord.objects.using(db_alias).values_list("pk", flat=True))


def get_running(db_alias: str, *, lock: bool = False) -> list[str]:
    """Return the keys of the records that are RUNNING; with a lock, no other becomes so until the transaction ends."""
    records = MigrationRecord.objects.using(db_alias).order_by("pk")
    if lock and get_database(db_alias).has_row_locks:
        records = records.filter(status__in=states.ACTIVE).select_for_update()
    return [record.key for record in records if record.status == states.RUNNING]


def move(
    key: str,
    db_alias: str,
    action: str,
    author: Author,
    *,
    of_attempt: uuid.UUID | None = None,
    seen: Seen | None = None,
    detail: str = "",
    parameters: dict[str, Any] | None = None,
    cause: logs.Cause | None = None,
    **fields: Any,
) -> bool:
    """Change the status of an existing record, if the action is legal, and write the event.

    Args:
        key: The migration's key.
        db_alias: The database.
        action: A name in ``states.MOVES``.
        author: Who does it.
        of_attempt: Only if this is still the record's attempt.
        seen: Only if the record is still as a person has seen it.
        detail: One line for the event.
        parameters: For the event.
        cause: What caused it, for the log.
        **fields: Further fields of the record to set.

    Returns:
        Whether the record was changed; False if its status or attempt was another.
    """
    legal = states.MOVES[action]
    rows = MigrationRecord.objects.using(db_alias).filter(pk=key)
    expected: dict[str, Any] = {"status__in": legal.sources}
    if of_attempt is not None:
        expected["attempt_uuid"] = of_attempt
    if seen is not None:
        expected["attempt_uuid"] = seen.attempt_uuid
        if seen.status:
            expected["status__in"] = [seen.status] if seen.status in legal.sources else []
    if legal.target is not None:
        fields["status"] = legal.target
    with transaction.atomic(using=db_alias):
        if not get_database(db_alias).update_if(rows, expected, {"moved_at": timezone.now(), **clean_values(fields)}):
            return False
        attempt_uuid = fields.get("attempt_uuid", of_attempt)
        reason = fields.get("reason", "")
        add_event(key, db_alias, action, author, attempt_uuid, detail, parameters, reason=reason, cause=cause)
    return True


def fail(
    key: str,
    db_alias: str,
    author: Author,
    attempt_uuid: uuid.UUID,
    sentence: str,
    reason: str,
    cause: logs.Cause | None = None,
) -> bool:
    """Move the record of an attempt to FAILED and keep why; return False if it is not active, or not of the attempt."""
    return move(
        key,
        db_alias,
        "fail",
        author,
        of_attempt=attempt_uuid,
        detail=sentence,
        cause=cause,
        reason=reason,
        error=sentence,
    )


def insert_record(key: str, db_alias: str, **fields: Any) -> bool:
    """Create the record; return False if another process was faster."""
    app_label, _, name = key.partition(":")
    if not get_database(db_alias).has_savepoints and get_record(key, db_alias) is not None:
        return False
    try:
        with transaction.atomic(using=db_alias):
            rows = MigrationRecord.objects.using(db_alias)
            rows.create(key=key, app_label=app_label, name=name, **clean_values(fields))
    except IntegrityError:
        return False
    return True


def delete_record(
    key: str, db_alias: str, author: Author, attempt_uuid: uuid.UUID | None, *, seen: Seen | None = None
) -> bool:
    """Forget the record and its shards, if it may be reset and is still as a person has seen it; the events stay."""
    rows = MigrationRecord.objects.using(db_alias).filter(pk=key)
    sources = [status for status in states.MOVES["reset"].sources if seen is None or seen.status in ("", status)]
    deleted = get_database(db_alias).delete_if(rows, {"status__in": sources, "attempt_uuid": attempt_uuid})
    if deleted:
        delete_shards(attempt_uuid, db_alias)
        add_event(key, db_alias, "reset", author, attempt_uuid)
    return bool(deleted)


def refuse(key: str, db_alias: str, action: str, status: str) -> IllegalMove:
    """Return the error that refuses an action in a status."""
    sentence = wording.get_refusal(action, key, db_alias, status)
    return IllegalMove(sentence, key=key, db_alias=db_alias, status=status, action=action)


def has_tables(db_alias: str) -> bool:
    """Return whether our tables exist in this database."""
    return get_database(db_alias).has_table(MigrationRecord._meta.db_table)
