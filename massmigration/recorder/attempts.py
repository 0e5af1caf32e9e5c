"""Reads and writes attempts: what was asked for, which version of the file works it, and its totals."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from django.utils import timezone

from massmigration.databases.redaction import clean, clean_values
from massmigration.databases.registry import get_database
from massmigration.models import MigrationAttempt, MigrationShard
from massmigration.recorder.making import ShardMaker
from massmigration.recorder.shards import get_shards


def get_attempt(attempt_uuid: uuid.UUID | None, db_alias: str) -> MigrationAttempt | None:
    """Return the attempt, or None."""
    if attempt_uuid is None:
        return None
    return MigrationAttempt.objects.using(db_alias).filter(pk=attempt_uuid).first()


def get_attempts(attempt_uuids: Collection[uuid.UUID], db_alias: str) -> dict[uuid.UUID, MigrationAttempt]:
    """Return several attempts by their keys, in one query."""
    rows = MigrationAttempt.objects.using(db_alias).filter(pk__in=attempt_uuids)
    return {attempt.uuid: attempt for attempt in rows}


def add_attempt(attempt: MigrationAttempt, db_alias: str) -> None:
    """Store a new attempt together with the shard in which it is planned."""
    attempt.started_by = clean(attempt.started_by)[:255]
    attempt.save(using=db_alias, force_insert=True)
    ShardMaker(db_alias).add_plan(attempt)


def update_attempt(attempt_uuid: uuid.UUID, db_alias: str, **fields: Any) -> None:
    """Set fields of an attempt."""
    MigrationAttempt.objects.using(db_alias).filter(pk=attempt_uuid).update(**clean_values(fields))


def change_source(attempt: MigrationAttempt, db_alias: str, source_hash: str, former_hashes: dict[str, Any]) -> bool:
    """Record with which version of the file an attempt continues, and which versions came before it.

    Returns:
        Whether no other process has changed it since the attempt was read.
    """
    attempts = MigrationAttempt.objects.using(db_alias).filter(pk=attempt.uuid)
    fields = {"source_hash": source_hash, "former_hashes": former_hashes or None}
    return bool(get_database(db_alias).update_if(attempts, {"source_hash": attempt.source_hash}, fields))


def record_watch(attempt_uuid: uuid.UUID, db_alias: str, seen: datetime | None, due_at: datetime) -> bool:
    """Record when the next look at a run is due; return False if another process has changed it since it was seen."""
    attempts = MigrationAttempt.objects.using(db_alias).filter(pk=attempt_uuid)
    return bool(get_database(db_alias).update_if(attempts, {"watch_due_at": seen}, {"watch_due_at": due_at}))


def keep_totals(
    attempt_uuid: uuid.UUID, db_alias: str, *, shards: Sequence[MigrationShard] | None = None, **fields: Any
) -> None:
    """Write the final totals of an attempt, summed from its shards.

    Args:
        attempt_uuid: The attempt that is over.
        db_alias: The database.
        shards: All its shards, if they were read in this transaction already.
        **fields: Further fields of the attempt to set.
    """
    shards = get_shards(attempt_uuid, db_alias) if shards is None else shards
    ranges = [shard for shard in shards if shard.kind == MigrationShard.RANGE]
    update_attempt(
        attempt_uuid,
        db_alias,
        processed=sum(shard.processed for shard in ranges),
        changed=sum(shard.changed for shard in ranges),
        shards=len(ranges),
        finished_at=timezone.now(),
        **fields,
    )
