"""Closes failures that a person takes as they are, and puts the cursor behind an object that stopped a run."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from django.db.models import F
from django.utils import timezone

from massmigration import clock
from massmigration.database import has_row_locks, is_document_store
from massmigration.models import MigrationFailure, MigrationRecord, MigrationShard
from massmigration.recorder.conditional import DOCUMENT_LIMIT, update_if
from massmigration.recorder.failures import get_failures

LOOKED_AT: Final = 5
"""A whole operation has a failure or two; all others are those of objects."""


def lock_record(key: str, db_alias: str) -> MigrationRecord | None:
    """Return the record, which nobody else moves until the transaction ends.

    On SQLite a write transaction keeps all others out anyway; on a document store one of two commits fails.
    """
    records = MigrationRecord.objects.using(db_alias).filter(pk=key)
    return (records.select_for_update() if has_row_locks(db_alias) else records).first()


def get_failures_of(attempt_uuid: uuid.UUID | None, db_alias: str, status: str) -> list[MigrationFailure]:
    """Return the failures of an attempt that have this status, oldest first."""
    return [failure for failure in get_failures(attempt_uuid, db_alias) if failure.status == status]


def count_acceptable(attempt_uuid: uuid.UUID, db_alias: str) -> int:
    """Return how many open failures are those of an object, and not of a whole operation.

    On a document store a few of them are looked at, since each that is read is paid for; the number is then the least.
    """
    failures = MigrationFailure.objects.using(db_alias).filter(attempt_uuid=attempt_uuid)
    if is_document_store(db_alias):
        found = failures.filter(status=MigrationFailure.OPEN).order_by("pk")[:LOOKED_AT]
        return sum(failure.object_key is not None for failure in found)
    return failures.filter(status=MigrationFailure.OPEN, object_key__isnull=False).count()


def is_accepted(failure: MigrationFailure, db_alias: str) -> bool:
    """Return whether a person has taken this very object as it is, in the same attempt."""
    stored = MigrationFailure.objects.using(db_alias).filter(pk=failure.pk).first()
    return stored is not None and stored.status == MigrationFailure.ACCEPTED


def mark_failures_accepted(failures: Sequence[MigrationFailure], db_alias: str) -> int:
    """Close open failures, because their objects stay as they are; return how many were open still.

    Args:
        failures: Of one attempt; at most ``DOCUMENT_LIMIT`` on a document store.
        db_alias: The database.
    """
    ids, count = [failure.pk for failure in failures], 0
    for start in range(0, len(ids), DOCUMENT_LIMIT):
        rows = MigrationFailure.objects.using(db_alias).filter(pk__in=ids[start : start + DOCUMENT_LIMIT])
        accepted = {"status": MigrationFailure.ACCEPTED, "is_passed": True}
        count += update_if(rows, {"status": MigrationFailure.OPEN}, accepted)
    return count


def pass_by(shard: MigrationShard, cursor: str, db_alias: str) -> bool:
    """Put the cursor of a shard that has failed behind the object that it failed at, and make the shard ready.

    Args:
        shard: As it was read in this transaction.
        cursor: Where it stands behind the object, encoded.
        db_alias: The database.

    Returns:
        Whether it still stood where it had failed.
    """
    rows = MigrationShard.objects.using(db_alias).filter(pk=shard.pk)
    failed = {"status": MigrationShard.FAILED, "fence": shard.fence, "cursor": shard.cursor}
    ready = {
        "status": MigrationShard.READY,
        "cursor": cursor,
        "fence": F("fence") + 1,
        "worker": "",
        **clock.NO_LEASE,
        "retries": 0,
        "enqueued_at": timezone.now(),
    }
    return bool(update_if(rows, failed, ready))
